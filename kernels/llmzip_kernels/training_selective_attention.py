# ruff: noqa: TID253
"""Selective attention of whole windows for training, without T x T tensors; float64, float32, bfloat16 or float16.

The same function as `llmzip_training.selection.selective_attention`, to rounding. What is stored for the backward pass:
q, k, v and the mixed values, the log of the softmax's sum of each query and head, and, once for all heads, F at the
first query of each tile, T * T / BLOCK numbers per window. All else is computed anew by tiles, forward and backward.
The backward pass adds T * T / BLOCK numbers per key head while it runs, and uses no atomic sums: twice the same input
gives twice the same bits.

Source: Leviathan, Kalman and Matias, "Selective Attention Improves Transformer", arXiv:2410.02703; the online softmax
by tiles is that of Dao, "FlashAttention-2", arXiv:2307.08691, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmzip_kernels.training_selective_attention_backward import attend_backward
from llmzip_kernels.training_selective_attention_forward import attend, outputs
from llmzip_kernels.training_selective_attention_tiles import Selection, block_size, fits

__all__ = ["Selection", "fits", "selective_attention"]


def selective_attention(
    q: Tensor, k: Tensor, v: Tensor, selection: Selection, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of a whole window under its own selection, and what each query has forgotten.

    Args:
        q: queries `[B, H, T, K]`; head 0 selects.
        k: keys `[B, Hk, T, K]`, H a multiple of Hk, of the same type.
        v: values, likewise.
        selection: scale and rules, and the limit of the memory penalty.
        block: queries and keys of a tile, a power of two from 16 on; None to choose it.

    Returns:
        The mixed values `[B, H, T, K]`, and the sum over keys of min(F, limit) / limit, `[B, T]`, float64 for float64
        and float32 else. Both can be differentiated, once.
    """
    y, forgotten = _SelectiveAttention.apply(q, k, v, selection, block or block_size(q))
    return y, forgotten


class _SelectiveAttention(torch.autograd.Function):
    """The kernels, as operators that `torch.compile` need not look into."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, selection: Selection, block: int) -> tuple[Tensor, Tensor]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        y, forgotten, lse, carried = _forward(q, k, v, *selection, block)
        ctx.save_for_backward(q, k, v, y, lse, carried)
        ctx.selection, ctx.block = selection, block
        ctx.set_materialize_grads(False)
        return y, forgotten

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, d_forgotten: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, y, lse, carried = ctx.saved_tensors
        dy = torch.zeros_like(y) if dy is None else dy if dy.stride(-1) == 1 else dy.contiguous()
        d_forgotten = lse.new_zeros(y.shape[0], y.shape[2]) if d_forgotten is None else d_forgotten.contiguous()
        return (*_backward(dy, d_forgotten, q, k, v, y, lse, carried, *ctx.selection, ctx.block), None, None)


@torch.library.custom_op("llmzip::selective_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor,
    scale: float, protect_first: bool, mask_self: bool, enabled: bool, limit: float, block: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.cuda.device_of(q):
        return attend(q, k, v, Selection(scale, protect_first, mask_self, enabled, limit), block)


@_forward.register_fake
def _forward_fake(
    q: Tensor, k: Tensor, v: Tensor,  # noqa: ARG001
    scale: float, protect_first: bool, mask_self: bool, enabled: bool, limit: float, block: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return outputs(q, enabled, block)


@torch.library.custom_op("llmzip::selective_attention_backward", mutates_args=())
def _backward(
    dy: Tensor, d_forgotten: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, carried: Tensor,
    scale: float, protect_first: bool, mask_self: bool, enabled: bool, limit: float, block: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    selection = Selection(scale, protect_first, mask_self, enabled, limit)
    with torch.cuda.device_of(q):
        return attend_backward(dy, d_forgotten, q, k, v, y, lse, carried, selection, block)


@_backward.register_fake
def _backward_fake(dy: Tensor, d_forgotten: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
