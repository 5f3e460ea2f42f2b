# ruff: noqa: TID253
"""Trains what the commands `llmzip train steering`, `codebook` and `memory` ask for; imports torch, loaded lazily.

`--out` fills with `metrics.jsonl`, `checkpoints/` and, at the end, `conditioner.cond`, `codebook.cond` or
`memory.cond`, and `report.json`. The same command continues a run that was paused or killed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from llmzip.allocator import keep_freed_memory
from llmzip.conditioning.hyperpriors import Kind
from llmzip.conditioning.vectors import MAX_PREFIX
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.store import find_bundled, find_model
from llmzip.tokens.tokenizer import ByteTokenizer
from llmzip_training import codebook, memory, steering
from llmzip_training.codebook import CodebookTrainer
from llmzip_training.codebook_config import CodebookConfig
from llmzip_training.conditioner_files import write_codebook, write_conditioner, write_memory, write_text
from llmzip_training.conditioner_run import ConditionerRun
from llmzip_training.config import expect_one_of
from llmzip_training.files import write_whole
from llmzip_training.frozen import FrozenModel, load_frozen
from llmzip_training.memory import MemoryConfig, MemoryTrainer
from llmzip_training.steering import SteeringConfig, SteeringTrainer
from llmzip_training.streams import TokenStream, file_stream, shard_streams


@dataclass(frozen=True)
class Job:
    """Where, on what and for which model.

    Attributes:
        out: folder of the run; continued if it holds checkpoints.
        model: name, id or folder; `None` for the bundled one.
        text: a file that is to be compressed, or else
        data: folder of shards, or else
        train, held_out: files.
        n_bytes: of training text that is taken from shards.
        variants: change one of their documents in so many, see `with_variants`; 0 for none.
        device: a torch device; `None` for a GPU where there is one.
        threads: of the CPU; `None` for torch's choice.
        pause_after_s: seconds from now until the run pauses.
    """

    out: Path
    model: str | None = None
    text: Path | None = None
    data: Path | None = None
    train: tuple[Path, ...] = ()
    held_out: tuple[Path, ...] = ()
    n_bytes: int = 8_000_000
    variants: int = 0
    device: str | None = None
    threads: int | None = None
    pause_after_s: float = float("inf")

    def __post_init__(self) -> None:
        """Refuse no text, and text from several places."""
        places = [bool(self.text), bool(self.data), bool(self.train or self.held_out)]
        if sum(places) != 1 or bool(self.train) != bool(self.held_out):
            raise ConfigError("training text: expected --text, --data, or --train with --held-out, and one of them")


def train_steering(job: Job, config: SteeringConfig, steps: int | None, kind: str = "gaussian") -> bool:
    """Train a conditioner, until the end or a pause; True at the end.

    Args:
        job: where and on what.
        config: how; its schedule's length counts only if it is by seconds.
        steps: how many, unless by seconds; `None` for as many as suit the text.
        kind: the hyperprior that the result is coded under.

    Raises:
        LlmzipError: model, text, checkpoint or configuration are not as they should be, or a loss is not finite.
    """
    pause_at = time.monotonic() + job.pause_after_s
    expect_one_of("hyperprior", kind, get_args(Kind))
    artefact, model = _model(job)
    text, held_out = _texts(job, artefact)
    config = steering.fitted(config, text, model)
    if not config.schedule.seconds:
        default = steering.SHARED_STEPS if held_out else steering.default_steps(text.n_tokens, config)
        config = replace(config, schedule=replace(config.schedule, steps=steps or default))
    trainer = SteeringTrainer(model, artefact.id, config, text, job.out, held_out)
    if finished := _train(trainer, pause_at):
        trained = trainer.result()
        n_bytes = write_conditioner(trained, artefact, job.out / "conditioner.cond", cast(Kind, kind))
        _write_report(job.out, trained.report | {"set_bytes": n_bytes})
    return finished


def write_string(text: str, model: str | None, out: Path) -> int:
    """Write a fixed string as a conditioner; the bytes that an archive holds of it.

    Args:
        text: as it would stand before every window.
        model: name, id or folder; `None` for the bundled one.
        out: the file.

    Raises:
        ConfigError: it has no token, or more than 256.
    """
    artefact = load_artefact((find_model(model) if model else find_bundled()).path)
    tokens = ByteTokenizer(artefact.tokenizer_json, artefact.vocabulary).encode(text.encode())
    if not 1 <= len(tokens) <= MAX_PREFIX:
        raise ConfigError(f"string: expected 1 to {MAX_PREFIX} tokens, found {len(tokens)}")
    return write_text(tokens, artefact, out, {"string": text})


def train_codebook(job: Job, config: CodebookConfig) -> bool:
    """Train a codebook, until the end or a pause; True at the end.

    Raises:
        LlmzipError: as `train_steering`; and where there is no held-out text.
    """
    pause_at = time.monotonic() + job.pause_after_s
    artefact, model = _model(job)
    text, held_out = _texts(job, artefact)
    if held_out is None:
        raise ConfigError("codebook: expected --data, or --train with --held-out, found --text")
    trainer = CodebookTrainer(model, artefact.id, codebook.fitted(config, model), text, held_out, job.out)
    if finished := _train(trainer, pause_at):
        trained = trainer.result()
        write_codebook(trained, artefact, job.out / "codebook.cond")
        _write_report(job.out, trained.report)
    return finished


def train_memory(job: Job, config: MemoryConfig) -> bool:
    """Train directions that chunks combine, until the end or a pause; True at the end.

    Raises:
        LlmzipError: as `train_codebook`.
    """
    pause_at = time.monotonic() + job.pause_after_s
    artefact, model = _model(job)
    text, held_out = _texts(job, artefact)
    if held_out is None:
        raise ConfigError("memory: expected --data, or --train with --held-out, found --text")
    trainer = MemoryTrainer(model, artefact.id, memory.fitted(config, model), text, held_out, job.out)
    if finished := _train(trainer, pause_at):
        trained = trainer.result()
        n_bytes = write_memory(trained, artefact, job.out / "memory.cond")
        _write_report(job.out, trained.report | {"set_bytes": n_bytes})
    return finished


def _model(job: Job) -> tuple[Artefact, FrozenModel]:
    keep_freed_memory()
    if job.threads:
        torch.set_num_threads(job.threads)
    found = find_model(job.model) if job.model else find_bundled()
    artefact = load_artefact(found.path)
    return artefact, load_frozen(artefact, job.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _texts(job: Job, artefact: Artefact) -> tuple[TokenStream, TokenStream | None]:
    if job.text:
        return file_stream([job.text], artefact), None
    if job.data:
        return shard_streams(job.data, artefact, job.n_bytes, variants=job.variants)
    return file_stream(job.train, artefact), file_stream(job.held_out, artefact)


def _train(trainer: ConditionerRun, pause_at: float) -> bool:
    finished = trainer.train(pause_at)
    print(f"{'finished' if finished else 'paused'} at step {trainer.step}", flush=True)
    return finished


def _write_report(out: Path, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=1)
    write_whole(out / "report.json", f"{text}\n".encode())
    print(text)
