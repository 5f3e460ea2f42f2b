# ruff: noqa: TID253
"""Compares selective with plain attention at equal parameters; imports torch, so it is loaded lazily as a whole.

    python -m llmzip_training.compare --data DIR --out DIR [--seeds 3] [--steps N]

trains a small model of each kind for each seed, both of a seed from the same weights on the same windows in the same
order, and measures them on held-out text: unpruned, and with pruned caches, where the selective model evicts and the
plain one keeps the latest tokens. `results.csv` has all measurements, `table.md` their means and standard deviations
over the seeds, and a folder for each run its exported model.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from llmzip_training.budget_curve import write_table
from llmzip_training.corpus import encode_documents
from llmzip_training.evaluate import token_loss
from llmzip_training.export import export_model
from llmzip_training.held_out import HeldOutWindows, bits_per_byte, cut_windows, nats_per_token
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.optimiser import OptimiserConfig, make_optimisers, rate_share, set_rates
from llmzip_training.pruning import Mode, PrunedModel, Pruning
from llmzip_training.selection import memory_penalty
from llmzip_training.shards import read_shards
from llmzip_training.tokenizer import train_tokenizer
from llmzip_training.windows import window_inputs

PRUNED_BY: dict[str, Mode] = {"selective": "evict", "plain": "recency"}
RATIOS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
OPTIMISER = OptimiserConfig(muon_rate=0.02, adamw_rate=0.008, weight_decay=0.02, warmup_steps=40, decay_share=0.45)
MEASURED_WINDOWS = 96


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
    train = [document for shard in shards for document in _first(shard.train, n_bytes // len(shards))]
    random.Random(0).shuffle(train)
    return train, [document for shard in shards for document in shard.held_out]


def _first(documents: Iterable[str], n_bytes: int) -> Iterator[str]:
    for document in documents:
        if n_bytes <= 0:
            return
        n_bytes -= len(document.encode())
        yield document


def train_model(config: ModelConfig, tokens: Tensor, arguments: argparse.Namespace, seed: int) -> LanguageModel:
    """Train a model on windows of `tokens` `[N]`; seed and configuration decide everything."""
    torch.manual_seed(seed)
    model = LanguageModel(config)
    optimisers = make_optimisers(model, OPTIMISER)
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(config.context)
    for step in range(arguments.steps):
        set_rates(optimisers, rate_share(OPTIMISER, step, step / arguments.steps))
        starts = torch.randint(len(tokens) - config.context, (arguments.batch, 1), generator=generator)
        windows_loss(model, tokens[starts + places], arguments.memory_weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMISER.clip_norm)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    return model.eval()


def windows_loss(model: LanguageModel, targets: Tensor, memory_weight: float) -> Tensor:
    """Cross-entropy of windows `[B, T]` in nats a token, and the weighted memory penalty of selective models."""
    forgettings: list[list[Tensor]] = []
    loss = token_loss(lambda ids: model(ids, forgettings), window_inputs(targets), targets)
    return loss + memory_weight * memory_penalty(forgettings) if forgettings and memory_weight else loss


def measure_model(model: LanguageModel, seed: int, windows: HeldOutWindows) -> Iterator[Result]:
    """Measure a model unpruned and at each ratio."""
    attention, length = model.config.attention, windows.targets.shape[1]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    for ratio in RATIOS:
        budget = max(1, int(length * ratio))
        pruning = Pruning((budget,) * model.config.n_layers, PRUNED_BY[attention])
        nats = nats_per_token(PrunedModel(model, pruning), windows)
        loss = (nats, bits_per_byte(nats, windows))
        yield Result(attention, seed, n_parameters, pruning.mode, ratio, budget, *loss)


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


def compare(arguments: argparse.Namespace) -> None:
    """Train and measure all models, and write what was found after each."""
    train, held_out = sample_documents(arguments.data, arguments.bytes)
    tokenizer: Tokenizer = train_tokenizer(iter(train), arguments.vocab_size)
    tokenizer.encode_special_tokens = True
    tokens = torch.from_numpy(np.concatenate(list(encode_documents(train, tokenizer))).astype(np.int64))
    windows = cut_windows(held_out, tokenizer, arguments.context, MEASURED_WINDOWS)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for seed in range(arguments.seeds):
        for attention in PRUNED_BY:
            started = time.monotonic()
            config = replace(model_config(arguments), attention=attention)  # type: ignore[arg-type]
            model = train_model(config, tokens, arguments, seed)
            export_model(model, tokenizer.to_str(), arguments.out / f"{attention}-{seed}")
            results += measure_model(model, seed, windows)
            write_table(arguments.out / "results.csv", Result._fields, results)
            (arguments.out / "table.md").write_text(format_table(results))
            nats = results[-len(RATIOS)].nats_per_token
            print(f"{attention}  seed {seed}  {nats:.4f} nats a token  {time.monotonic() - started:.0f} s", flush=True)
    print(format_table(results))


def model_config(arguments: argparse.Namespace) -> ModelConfig:
    """The shape of all models."""
    return ModelConfig(
        vocab_size=arguments.vocab_size,
        width=arguments.width,
        n_layers=arguments.layers,
        n_heads=arguments.heads,
        n_kv_heads=arguments.heads,
        ffn_width=4 * arguments.width,
        context=arguments.context,
        mlp="plain",
        activation="relu2",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="llmzip_training.compare", description="Selective against plain attention.")
    parser.add_argument("--data", type=Path, required=True, help="folder of *.txt.zst shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=300, help="steps of a run")
    parser.add_argument("--batch", type=int, default=8, help="windows in a step")
    parser.add_argument("--context", type=int, default=256, help="tokens in a window")
    parser.add_argument("--bytes", type=int, default=8_000_000, help="of text to train on")
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--memory-weight", type=float, default=0.0, help="of the memory penalty of selective models")
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
