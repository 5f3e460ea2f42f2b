# ruff: noqa: TID253
"""Losses, and bits per byte of text; imports torch, so it is loaded lazily as a whole.

Bits per byte, unlike loss per token, can be compared between tokenizers and is what an archive
costs but for its entropy coder. What is measured is a fixed set of tokens: no size of a batch, number of
processes or stage of a run changes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip_training.corpus import END_OF_DOCUMENT, HeldOut
from llmzip_training.distributed import ALONE, Processes
from llmzip_training.selection import Forgotten, memory_penalty
from llmzip_training.windows import consecutive_windows, window_inputs

MEASURE_BATCH = 16


def autocast(device: str, mode: str) -> torch.autocast:
    """The context that a run's forward passes are in: `bfloat16`, `none`, or `auto`, bfloat16 on a GPU only.

    On CPUs bfloat16 pays only where they have instructions for it.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=mode == "bfloat16" or (mode == "auto" and kind == "cuda"))


def micro_batch_losses(
    model: nn.Module, inputs: Tensor, targets: Tensor, memory_reduce: str | None
) -> tuple[Tensor, Tensor]:
    """What the loss of a step is put together from.

    Args:
        model: takes ids `[B, context]`, and a list for the F of its layers.
        inputs: `[B, context]`, int64.
        targets: likewise.
        memory_reduce: `max` or `mean` for that memory penalty, of selective models only; `None` for none.

    Returns:
        Cross-entropy in nats, summed over the targets, and the memory penalty, the mean over the windows, or 0.
    """
    if memory_reduce is None:
        nats = token_loss(model, inputs, targets, "sum")
        return nats, torch.zeros_like(nats)
    forgettings: list[list[Tensor] | Forgotten] = []
    nats = token_loss(lambda ids: model(ids, forgettings), inputs, targets, "sum")
    return nats, memory_penalty(forgettings, reduce=memory_reduce)


def token_loss(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of the targets, those that are document boundaries left out."""
    logits = model(inputs)
    return functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), targets.view(-1), ignore_index=END_OF_DOCUMENT, reduction=reduction
    )


def total_bits(model: nn.Module, tokens: Tensor, context: int, processes: Processes = ALONE) -> float:
    """Bits to code `tokens` `[N]` in windows of `context` that do not overlap; this process's share of them."""
    return total_nats(model, consecutive_windows(tokens, context), processes) / math.log(2)


@torch.no_grad()
def total_nats(model: nn.Module, windows: Tensor, processes: Processes = ALONE) -> float:
    """Cross-entropy in nats, summed over the targets `windows` `[N, T]`; this process's share of them."""
    batches = torch.split(windows, MEASURE_BATCH)[processes.rank :: processes.world]
    return sum(token_loss(model, window_inputs(targets), targets, "sum").item() for targets in batches)


def shard_bits_per_byte(
    model: nn.Module,
    held_out: Iterable[HeldOut],
    context: int,
    device: str,
    n_tokens: int = 0,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Bits per byte of each shard's held-out text, and of all of it as `all`.

    Args:
        model: takes ids `[B, context]`.
        held_out: what to measure on.
        context: length of a window.
        device: where the model is.
        n_tokens: measure on the first so many tokens of each shard only, 0 for all of them; the
            bytes are then counted in proportion to the tokens.
        processes: who shares the work; each gets the whole result.
    """
    bits: dict[str, float] = {}
    n_bytes: dict[str, float] = {}
    for shard in held_out:
        tokens = torch.from_numpy(shard.tokens[: n_tokens or None].astype("int64")).to(device)
        bits[shard.name] = total_bits(model, tokens, context, processes)
        n_bytes[shard.name] = shard.n_bytes * len(tokens) / max(len(shard.tokens), 1)
    sums = processes.sum(torch.tensor(list(bits.values()), dtype=torch.float64)).tolist()
    result = {name: total / n_bytes[name] for name, total in zip(bits, sums, strict=True) if n_bytes[name]}
    result["all"] = sum(sums) / max(sum(n_bytes.values()), 1.0)
    return result
