"""Compares selective with plain attention at equal parameters; imports torch, so it is loaded lazily as a whole.

    llmzip train compare --data DIR --out DIR [--seeds 3] [--steps N]

or `python -m llmzip_training.compare` with the same arguments, trains a small model of each kind for each seed, both of
a seed from the same weights on the same windows in the same order, and measures them on held-out text: unpruned, and
with pruned caches, where the selective model evicts and the plain one keeps the latest tokens. `results.csv` has all
measurements, `table.md` their means and standard deviations over the seeds, and a folder for each run its exported
model.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from llmzip_training.budget_curve import write_table
from llmzip_training.corpus import Corpus, Tokens, encode_documents
from llmzip_training.export import export_model
from llmzip_training.held_out import HeldOutWindows, cut_windows, nats_per_token
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.optimiser import OptimiserConfig
from llmzip_training.pruning import Mode, PrunedModel, Pruning
from llmzip_training.run_file import RunConfig, ScheduleConfig, StageConfig
from llmzip_training.shards import read_shards
from llmzip_training.tokenizer import train_tokenizer
from llmzip_training.trainer import Trainer

PRUNED_BY: dict[str, Mode] = {"selective": "evict", "plain": "recency"}
RATIOS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
OPTIMISER = OptimiserConfig(muon_rate=0.02, adamw_rate=0.008, weight_decay=0.02, warmup_steps=40, decay_share=0.45)
MEASURED_WINDOWS = 96


@dataclass(frozen=True)
class CompareJob:
    """What is compared, and on what.

    Attributes:
        data: folder of shards.
        out: folder of the results.
        seeds: runs of each kind.
        steps: of a run.
        batch: windows in a step.
        context: tokens in a window.
        n_bytes: of text to train on.
        vocab_size, width, layers, heads: the shape of the models.
        memory_weight, memory_reduce: of the memory penalty of selective models, as in a run file.
    """

    data: Path
    out: Path
    seeds: int = 3
    steps: int = 300
    batch: int = 8
    context: int = 256
    n_bytes: int = 8_000_000
    vocab_size: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    memory_weight: float = 0.0
    memory_reduce: Literal["max", "mean"] = "max"


class Result(NamedTuple):
    """A measurement of a run.

    Attributes:
        attention: `selective` or `plain`.
        seed: of weights and data.
        n_parameters: of the model.
        mode: how it was pruned.
        ratio: of the window that a query may see; 1 is unpruned.
        budget: the same in tokens.
        nats_per_token: cross-entropy on held-out text.
        bits_per_byte: the same in bits per byte of the text.
    """

    attention: str
    seed: int
    n_parameters: int
    mode: Mode
    ratio: float
    budget: int
    nats_per_token: float
    bits_per_byte: float


def sample_documents(data: Path, n_bytes: int) -> tuple[list[str], list[str]]:
    """About so many bytes of training documents, in equal parts from all shards and mixed, and all held-out ones."""
    shards = list(read_shards(data))
    train = [document for shard in shards for document in _first_documents(shard.train, n_bytes // len(shards))]
    random.Random(0).shuffle(train)
    return train, [document for shard in shards for document in shard.held_out]


def _first_documents(documents: Iterable[str], n_bytes: int) -> Iterator[str]:
    for document in documents:
        if n_bytes <= 0:
            return
        n_bytes -= len(document.encode())
        yield document


def train_model(config: ModelConfig, tokens: Tokens, job: CompareJob, seed: int) -> LanguageModel:
    """Train a model on a stream of tokens; seed and configuration decide everything.

    Raises:
        DivergedError: a loss is not finite.
    """
    memory_weight = job.memory_weight if config.attention == "selective" else 0.0
    stage = StageConfig(1.0, config.context, job.batch, memory_weight, memory_reduce=job.memory_reduce)
    run = RunConfig(config, OPTIMISER, ScheduleConfig(steps=job.steps, seed=seed), (stage,))
    trainer = Trainer(run, Corpus(tokens, ()), job.out, "cpu")
    while trainer.progress < 1.0:
        trainer.take_step()
    trainer.expect_finite()
    return trainer.model.eval()


def measure_model(model: LanguageModel, seed: int, windows: HeldOutWindows) -> Iterator[Result]:
    """Measure a model unpruned and at each ratio."""
    attention, length = model.config.attention, windows.targets.shape[1]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    for ratio in RATIOS:
        budget = max(1, int(length * ratio))
        pruning = Pruning((budget,) * model.config.n_layers, PRUNED_BY[attention])
        nats = nats_per_token(PrunedModel(model, pruning), windows)
        bits = windows.bits_per_byte(nats)
        yield Result(attention, seed, n_parameters, pruning.mode, ratio, budget, nats, bits)


def format_table(results: list[Result]) -> str:
    """Means and standard deviations over the seeds, as a Markdown table."""
    n_seeds = len({one.seed for one in results})
    lines = [
        f"{n_seeds} seeds, {results[0].n_parameters} parameters each; held-out loss, mean ± standard deviation.",
        "The selective model evicts, the plain one keeps the latest tokens.",
        "",
        "| tokens seen | selective, nats a token | plain, the same | selective, bits per byte | plain, the same |",
        "|---|---|---|---|---|",
    ]
    for ratio, budget in dict.fromkeys((one.ratio, one.budget) for one in results):
        rows = [[one for one in results if (one.ratio, one.attention) == (ratio, kind)] for kind in PRUNED_BY]
        nats = [_spread(one.nats_per_token for one in row) for row in rows]
        bits = [_spread(one.bits_per_byte for one in row) for row in rows]
        name = "all" if ratio == 1 else f"{budget} ({ratio:.0%})"
        lines.append(f"| {' | '.join([name, *nats, *bits])} |")
    return "\n".join(lines) + "\n"


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    if len(found) < 2:
        return "".join(f"{value:.4f}" for value in found)
    return f"{statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}"


def compare(job: CompareJob) -> None:
    """Train and measure all models, and write what was found after each.

    Raises:
        LlmzipError: the data or the shape of the models are not as they should be, or a loss is not finite.
    """
    shape = model_config(job)
    train, held_out = sample_documents(job.data, job.n_bytes)
    tokenizer = train_tokenizer(iter(train), job.vocab_size)
    tokenizer.encode_special_tokens = True
    tokens = np.concatenate(list(encode_documents(train, tokenizer)))
    windows = cut_windows(held_out, tokenizer, job.context, MEASURED_WINDOWS)
    job.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for seed in range(job.seeds):
        for attention in PRUNED_BY:
            started = time.monotonic()
            model = train_model(replace(shape, attention=attention), tokens, job, seed)  # type: ignore[arg-type]
            export_model(model, tokenizer.to_str(), job.out / f"{attention}-{seed}")
            results += measure_model(model, seed, windows)
            write_table(job.out / "results.csv", Result._fields, results)
            (job.out / "table.md").write_text(format_table(results))
            nats = results[-len(RATIOS)].nats_per_token
            print(f"{attention}  seed {seed}  {nats:.4f} nats a token  {time.monotonic() - started:.0f} s", flush=True)
    print(format_table(results))


def model_config(job: CompareJob) -> ModelConfig:
    """The shape of all models."""
    return ModelConfig(
        vocab_size=job.vocab_size,
        width=job.width,
        n_layers=job.layers,
        n_heads=job.heads,
        n_kv_heads=job.heads,
        ffn_width=4 * job.width,
        context=job.context,
        mlp="plain",
        activation="relu2",
    )


def main() -> None:
    """Run `llmzip train compare` with the arguments of this process."""
    from llmzip.cli import main as llmzip

    sys.argv = ["llmzip", "train", "compare", *sys.argv[1:]]
    llmzip()


if __name__ == "__main__":
    main()
