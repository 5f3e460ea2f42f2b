# ruff: noqa: TID253
"""Selective attention in float; imports torch, so it is loaded lazily as a whole.

The first head of a layer also selects: where it looks at an earlier token, that token is forgotten a
little by all heads, from the next query on. Source: Leviathan, Kalman and Matias, "Selective Attention
Improves Transformer", arXiv:2410.02703.

With Z the scaled scores of all heads, q a query and k a key:

    S[q, k] = ReLU(Z[0, q, k]),  0 for k >= q, and for k = 0 where the first position is protected
    F[q, k] = S[0, k] + ... + S[q - 1, k]
    attention of head h: softmax over k <= q of Z[h, q, k] - F[q, k]

Queries go by blocks, each with the keys up to its end only; F is carried from block to block. What is selected is
decided by `selection_scores`, how it adds up by `accumulate`. On a GPU, `llmzip_kernels.training_selective_attention`
computes the same without F in memory; what is here is its reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256
_HAS_TRITON = find_spec("triton") is not None


class SelectionRules(NamedTuple):
    """Who may be forgotten.

    Attributes:
        protect_first: nothing is forgotten at position 0 of the window.
        mask_self: a query's own key takes part in its selection too.
        enabled: False computes F = 0, and so plain attention by the same code.
    """

    protect_first: bool = True
    mask_self: bool = False
    enabled: bool = True


class Forgotten(NamedTuple):
    """What the memory penalty needs to know of a layer whose F is not at hand.

    Attributes:
        sums: over the keys, of min(F, limit) / limit, for each query, `[B, T]`.
        limit: from which F on a token counts as forgotten.
    """

    sums: Tensor
    limit: float


def selection_scores(scores: Tensor, queries: Tensor, keys: Tensor, rules: SelectionRules) -> Tensor:
    """S for scores of the selecting head.

    Args:
        scores: `[B, Tq, Tk]`; those of the future may be any finite numbers.
        queries: their positions in the window, `[Tq]`.
        keys: theirs, `[Tk]` or, where windows differ, `[B, Tk]`.
        rules: who may be forgotten.
    """
    return functional.relu(scores) * _selectable(queries, keys, rules).to(scores.dtype)


def accumulate(selection: Tensor, carried: Tensor) -> Tensor:
    """F for a block of queries: what earlier queries selected, `carried` `[B, Tk]` and the block's own.

    `selection` is `[B, Tq, Tk]`. The sum of a query leaves its own selection out: by a shift and not by taking it
    off again, since that rounds, and F would fall a little from query to query.
    """
    return functional.pad(selection, (0, 0, 1, 0))[:, :-1].cumsum(dim=1) + carried[:, None]


def forgetting_blocks(q: Tensor, k: Tensor, scale: float, rules: SelectionRules) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and F of the whole window, a block of queries at a time.

    Args:
        q: queries `[B, H, T, K]`.
        k: keys `[B, Hk, T, K]`, H a multiple of Hk.
        scale: what q.k is multiplied by.
        rules: who may be forgotten.

    Yields:
        Z `[B, H, Tq, Tk]`, scores of the future included, and F `[B, Tq, Tk]`, for each block in order.
    """
    n_batch, _, length, _ = q.shape
    carried = q.new_zeros(n_batch, 0)
    for first in range(0, length, BLOCK):
        end = min(first + BLOCK, length)
        carried = functional.pad(carried, (0, end - carried.shape[1]))
        scores = grouped_product(q[:, :, first:end], k[:, :, :end].mT) * scale
        if not rules.enabled:
            yield scores, scores.new_zeros(n_batch, end - first, end)
            continue
        queries, keys = _places(end - first, first, scores), _places(end, 0, scores)
        selection = selection_scores(scores[:, 0], queries, keys, rules)
        forgetting = accumulate(selection, carried)
        carried = forgetting[:, -1] + selection[:, -1]
        yield scores, forgetting


def selective_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, rules: SelectionRules
) -> tuple[Tensor, list[Tensor]]:
    """Attention of a whole window under its own selection.

    Args:
        q: queries `[B, H, T, K]`; head 0 selects.
        k: keys `[B, Hk, T, K]`, H a multiple of Hk.
        v: values, likewise.
        scale: what q.k is multiplied by.
        rules: who may be forgotten.

    Returns:
        The mixed values `[B, H, T, K]`, and F by blocks of queries, each `[B, Tq, Tk]`.
    """
    mixed: list[Tensor] = []
    forgettings: list[Tensor] = []
    for scores, forgetting in forgetting_blocks(q, k, scale, rules):
        first, end = scores.shape[3] - scores.shape[2], scores.shape[3]
        visible = causal_mask(end - first, end, first, scores)
        weights = (scores - forgetting[:, None] + visible).softmax(dim=-1)
        mixed.append(grouped_product(weights, v[:, :, :end]))
        forgettings.append(forgetting)
    return torch.cat(mixed, dim=2), forgettings


def runs_kernels(q: Tensor) -> bool:
    """Whether there are kernels for queries like these: on a GPU, with Triton, and for heads that are not too wide."""
    if not q.is_cuda or not _HAS_TRITON:
        return False
    from llmzip_kernels.training_selective_attention import fits

    return fits(q)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, rules: SelectionRules, limit: float = 1.0
) -> tuple[Tensor, Forgotten]:
    """`selective_attention` by kernels, to rounding; what is left of F are the sums that a memory penalty needs."""
    from llmzip_kernels.training_selective_attention import Selection, selective_attention

    y, sums = selective_attention(q, k, v, Selection(scale, *rules, limit))
    return y, Forgotten(sums, limit)


def grouped_product(a: Tensor, b: Tensor) -> Tensor:
    """`a` `[B, H, M, K]` times `b` `[B, Hk, K, N]`, each matrix of `b` for H / Hk heads, as `[B, H, M, N]`."""
    n_batch, n_heads, n_rows, width = a.shape
    n_kv_heads = b.shape[1]
    grouped = a.reshape(n_batch * n_kv_heads, n_heads // n_kv_heads * n_rows, width)
    return (grouped @ b.flatten(0, 1)).view(n_batch, n_heads, n_rows, b.shape[3])


def causal_mask(n_queries: int, n_keys: int, first_query: int, like: Tensor) -> Tensor:
    """`[Tq, Tk]`: 0 where the key is not after the query, minus infinity elsewhere."""
    future = _places(n_keys, 0, like)[None, :] > _places(n_queries, first_query, like)[:, None]
    return torch.zeros(n_queries, n_keys, dtype=like.dtype, device=like.device).masked_fill(future, float("-inf"))


def memory_penalty(forgettings: Sequence[list[Tensor] | Forgotten], limit: float = 1.0, reduce: str = "max") -> Tensor:
    """How many tokens the layers keep, as a share of the window.

    A query at position i, counted from 1, keeps M = i - sum over k <= i of min(F[i, k], limit) / limit. The
    penalty is the mean over windows and layers of the greatest (`max`) or mean (`mean`) M, divided by the
    window's length. Source: section 3.3 of the paper.

    Args:
        forgettings: for each layer, F by blocks of queries, each `[B, Tq, Tk]`, or what kernels have left of it.
        limit: from which F on a token counts as forgotten.
        reduce: over the queries, `max` or `mean`.

    Raises:
        ValueError: kernels have counted with another limit.
    """
    kept = torch.stack([_kept(_forgotten(layer, limit)) for layer in forgettings])
    length = kept.shape[-1]
    return (kept.amax(dim=-1) if reduce == "max" else kept.mean(dim=-1)).mean() / length


def _forgotten(layer: list[Tensor] | Forgotten, limit: float) -> Tensor:
    """For each query, `[B, T]`."""
    if isinstance(layer, Forgotten):
        if layer.limit != limit:
            raise ValueError(f"memory penalty: expected a limit of {layer.limit}, found {limit}")
        return layer.sums
    return torch.cat([block.clamp(max=limit).sum(dim=-1) / limit for block in layer], dim=1)


def _kept(forgotten: Tensor) -> Tensor:
    return _places(forgotten.shape[1], 1, forgotten).to(forgotten.dtype) - forgotten


def _selectable(queries: Tensor, keys: Tensor, rules: SelectionRules) -> Tensor:
    distance = queries[:, None] - keys[..., None, :]
    allowed = distance >= 0 if rules.mask_self else distance > 0
    return allowed & (keys > 0)[..., None, :] if rules.protect_first else allowed


def _places(n: int, first: int, like: Tensor) -> Tensor:
    return torch.arange(first, first + n, device=like.device)
