# ruff: noqa: TID253
"""Trains one run file to a Hugging Face folder; imports torch, so it is loaded lazily as a whole.

`llmzip train lm RUN.toml --data DIR --out DIR`, or `python -m llmzip_training.train` with the same arguments.

`--out` fills with the tokenizer, the token files in `cache/`, `metrics.jsonl`, `loss.png`, `checkpoints/` and, at the
end of the run or at a pause, the exported model in `hf/` and `held_out.json`. The same command continues a run that
was paused or killed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from llmzip.allocator import keep_freed_memory
from llmzip.errors import BackendError, ConfigError
from llmzip_training.checkpoint import checkpoint_paths
from llmzip_training.corpus import check_shares, checked_tokenizer, load_corpus, prepare_corpus
from llmzip_training.distributed import Processes, joined, local_device
from llmzip_training.export import export_model
from llmzip_training.files import write_whole
from llmzip_training.load import find_tokenizer
from llmzip_training.metrics import draw_curve
from llmzip_training.run_file import RunConfig, load_run
from llmzip_training.shards import digest_file
from llmzip_training.tokenizer import sample_texts, train_tokenizer
from llmzip_training.trainer import Trainer

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Job:
    """Where and on what a run file is trained.

    Attributes:
        run_file: the run file.
        data: folder of shards, `*.txt.zst`.
        out: folder of this run; continued if it holds checkpoints.
        cache: folder of token files, which runs may share; `None` for `out/cache`.
        tokenizer: a tokenizer to use instead of training one.
        pause_after_s: seconds from now until the run pauses.
        device: `cpu`, `cuda` or a torch device; `None` for a GPU where there is one.
        threads: of the CPU, for each process; `None` for torch's choice.
    """

    run_file: Path
    data: Path
    out: Path
    cache: Path | None = None
    tokenizer: Path | None = None
    pause_after_s: float = float("inf")
    device: str | None = None
    threads: int | None = None


def train_language_model(job: Job) -> bool:
    """Train, until the end or a pause; True at the end.

    Raises:
        LlmzipError: a run file, a corpus, a checkpoint or a device is not as it should be; the loss is not finite; or
            another process of the run is gone.
    """
    pause_at = time.monotonic() + job.pause_after_s
    keep_freed_memory()
    run = load_run(job.run_file)
    device = _device(job.device)
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.set_float32_matmul_precision("high" if device.startswith("cuda") else "highest")
    with joined(device) as processes:
        corpus = load_corpus(processes.first(lambda: prepare_folder(run, job)))
        trainer = Trainer(run, corpus, job.out, device, processes)
        trainer.load()
        _tell(processes, f"{len(corpus.tokens)} tokens, {_count(trainer)} parameters, from step {trainer.step}")
        finished = trainer.train(pause_at)
        trainer.save(final=finished)
        held_out = trainer.measure(0 if finished else run.schedule.measure_windows * run.model.context)
        if processes.is_main:
            _write_results(trainer, held_out)
        _tell(processes, ("finished " if finished else "paused ") + json.dumps(held_out, indent=1))
    return finished


def prepare_folder(run: RunConfig, job: Job) -> Path:
    """Put the tokenizer into `out`, unless it is there, and tokenise the corpus; the result is the corpus's folder.

    Raises:
        ConfigError: the tokenizer is not the one asked for, or has more tokens than the model; a folder that had
            none still has none.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    path = prepare_tokenizer(run, job)
    return prepare_corpus(job.data, path, job.cache or job.out / "cache", run.schedule.seed, run.corpus.shares)


def prepare_tokenizer(run: RunConfig, job: Job) -> Path:
    """The tokenizer of a run: the one that it has, a copy of one that it is given, or one trained on the shards."""
    path = job.out / TOKENIZER
    given = given_tokenizers(run, job)
    candidates = [path, *given] if path.exists() else given
    for candidate in candidates:
        if digest_file(candidate) != digest_file(candidates[0]):
            raise ConfigError(f"{candidates[0]}: expected the content of {candidate}, found another tokenizer")
        checked_tokenizer(candidate, run.model.vocab_size)
    if not path.exists():
        write_whole(path, given[0].read_bytes() if given else _trained_tokenizer(run, job.data))
    return path


def given_tokenizers(run: RunConfig, job: Job) -> list[Path]:
    """The tokenizers that a run must use: that of the command line and, at first, of the model that it begins with."""
    given = [job.tokenizer] if job.tokenizer else []
    if run.start_from.folder and not checkpoint_paths(job.out):
        given.append(find_tokenizer(Path(run.start_from.folder)))
    return given


def _trained_tokenizer(run: RunConfig, data: Path) -> bytes:
    check_shares(data, run.corpus.shares)
    text: str = train_tokenizer(sample_texts(data, run.corpus.shares), run.model.vocab_size).to_str(pretty=True)
    return text.encode()


def _write_results(trainer: Trainer, held_out: dict[str, float]) -> None:
    out = trainer.out
    export_model(trainer.model, (out / TOKENIZER).read_bytes().decode(), out / "hf")
    facts = {"step": trainer.step, "bits_per_byte": held_out}
    write_whole(out / "held_out.json", f"{json.dumps(facts)}\n".encode())
    if (out / "metrics.jsonl").exists():
        draw_curve(out)


def _device(wanted: str | None) -> str:
    """The device of this process.

    Raises:
        BackendError: there is no such device.
    """
    device = local_device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackendError(f"device {device}: expected one that torch can use, found none: {reason}") from error
    return device


def _count(trainer: Trainer) -> int:
    return sum(parameter.numel() for parameter in trainer.model.parameters())


def _tell(processes: Processes, text: str) -> None:
    if processes.is_main:
        print(text, flush=True)


def main() -> None:
    """Run `llmzip train lm` with the arguments of this process."""
    from llmzip.cli import main as llmzip

    sys.argv = ["llmzip", "train", "lm", *sys.argv[1:]]
    llmzip()


if __name__ == "__main__":
    main()
