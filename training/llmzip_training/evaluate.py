# ruff: noqa: TID253
"""Measures a model in bits per byte of text; imports torch, so it is loaded lazily as a whole.

Bits per byte, unlike loss per token, can be compared between tokenizers and is what an archive
costs but for its entropy coder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip_training.corpus import END_OF_DOCUMENT, HeldOut
from llmzip_training.windows import consecutive_windows, window_inputs

MEASURE_BATCH = 16


def token_loss(model: nn.Module, inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of the targets, those that are document boundaries left out."""
    autocast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs.is_cuda)
    with autocast:
        logits = model(inputs)
    return functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), targets.view(-1), ignore_index=END_OF_DOCUMENT, reduction=reduction
    )


@torch.no_grad()
def total_bits(model: nn.Module, tokens: Tensor, context: int) -> float:
    """Bits to code `tokens` `[N]` in windows of `context` that do not overlap."""
    windows = consecutive_windows(tokens, context)
    nats = 0.0
    for targets in torch.split(windows, MEASURE_BATCH):
        nats += token_loss(model, window_inputs(targets), targets, "sum").item()
    return nats / math.log(2)


def bits_per_byte(
    model: nn.Module, held_out: Iterable[HeldOut], context: int, device: str, n_windows: int = 0
) -> dict[str, float]:
    """Bits per byte of each shard's held-out text, and of all of it as `all`.

    Args:
        model: takes ids `[B, context]`.
        held_out: what to measure on.
        context: length of a window.
        device: where the model is.
        n_windows: measure on the first so many windows of each shard only, 0 for all of them; the
            bytes are then counted in proportion to the tokens.
    """
    bits: dict[str, float] = {}
    n_bytes: dict[str, float] = {}
    for shard in held_out:
        limit = n_windows * context or len(shard.tokens)
        tokens = torch.from_numpy(shard.tokens[:limit].astype("int64")).to(device)
        bits[shard.name] = total_bits(model, tokens, context)
        n_bytes[shard.name] = shard.n_bytes * len(tokens) / len(shard.tokens)
    result = {name: bits[name] / n_bytes[name] for name in bits}
    result["all"] = sum(bits.values()) / sum(n_bytes.values())
    return result
