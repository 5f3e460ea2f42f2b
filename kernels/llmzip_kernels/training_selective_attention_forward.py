# ruff: noqa: TID253
"""The forward pass of selective attention for training: carried sums of S, then attention of all heads."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from llmzip_kernels.training_selective_attention_tiles import (
    Selection,
    constants,
    load_rows,
    selection_tile,
    sum_dtype,
)


@triton.jit
def _carried_kernel(
    q_ptr, k_ptr, carried_ptr, q_strides, k_strides, T, K,
    scale: tl.constexpr, PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A program goes down one tile of keys; q `[B, H, T, K]`, k `[B, Hk, T, K]`, carried `[B, T / BLOCK, T]`."""
    i_n, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n_blocks = tl.cdiv(T, BLOCK)
    o_rows, o_width = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    o_k = i_n * BLOCK + o_rows
    b_k = load_rows(k_ptr + i_b * k_strides[0], k_strides[2], o_k, T, o_width, K)
    q_ptr += i_b * q_strides[0]
    carried_ptr += i_b * n_blocks * T
    carried = tl.zeros([BLOCK], carried_ptr.dtype.element_ty)
    for i_m in range(i_n, n_blocks):
        tl.store(carried_ptr + i_m * T + o_k, carried, o_k < T)
        o_q = i_m * BLOCK + o_rows - 1
        b_q = load_rows(q_ptr, q_strides[2], o_q, T, o_width, K)
        carried += tl.sum(selection_tile(b_q, b_k, o_q, o_k, scale, PROTECT_FIRST, MASK_SELF, PRECISION), axis=0)


@triton.jit
def _attention_kernel(
    q_ptr, k_ptr, v_ptr, carried_ptr, y_ptr, lse_ptr, forgotten_ptr, q_strides, k_strides, v_strides, T, K, GROUP,
    scale: tl.constexpr, limit: tl.constexpr, PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr,
    SELECT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A program has a tile of queries of one head, the longest first; lse `[B, H, T]`, forgotten `[B, T]`."""
    n_blocks, n_heads = tl.num_programs(0), tl.num_programs(1)
    i_m, i_h, i_b = n_blocks - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_rows, o_width = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    o_q = i_m * BLOCK + o_rows
    q_ptr += i_b * q_strides[0]
    k_ptr += i_b * k_strides[0]
    v_ptr += i_b * v_strides[0] + i_h // GROUP * v_strides[1]
    b_q = load_rows(q_ptr + i_h * q_strides[1], q_strides[2], o_q, T, o_width, K)
    b_q0 = load_rows(q_ptr, q_strides[2], o_q - 1, T, o_width, K)
    dtype = lse_ptr.dtype.element_ty
    acc = tl.zeros([BLOCK, BLOCK_K], dtype)
    greatest, total = tl.full([BLOCK], float("-inf"), dtype), tl.zeros([BLOCK], dtype)
    forgotten = tl.zeros([BLOCK], dtype)
    for i_n in range(i_m + 1):
        o_k = i_n * BLOCK + o_rows
        b_k = load_rows(k_ptr + i_h // GROUP * k_strides[1], k_strides[2], o_k, T, o_width, K)
        scores = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale
        if SELECT:
            b_k0 = load_rows(k_ptr, k_strides[2], o_k, T, o_width, K)
            selection = selection_tile(b_q0, b_k0, o_q - 1, o_k, scale, PROTECT_FIRST, MASK_SELF, PRECISION)
            carried = tl.load(carried_ptr + (i_b * n_blocks + i_m) * T + o_k, o_k < T, other=0.0)
            forgetting = carried[None, :] + tl.cumsum(selection, axis=0)
            scores -= forgetting
            if i_h == 0:
                forgotten += tl.sum(tl.where(forgetting <= limit, forgetting * (1.0 / limit), 1.0), axis=1)
        scores = tl.where(o_q[:, None] >= o_k[None, :], scores, float("-inf"))
        higher = tl.maximum(greatest, tl.max(scores, axis=1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(greatest - higher)
        b_v = load_rows(v_ptr, v_strides[2], o_k, T, o_width, K)
        acc = acc * shrink[:, None] + tl.dot(weights.to(b_v.dtype), b_v, input_precision=PRECISION)
        total = total * shrink + tl.sum(weights, axis=1)
        greatest = higher
    y_ptr += (i_b * T * n_heads + i_h) * K
    m_y = (o_q < T)[:, None] & (o_width < K)[None, :]
    y = (acc / total[:, None]).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + o_q[:, None] * (n_heads * K) + o_width[None, :], y, m_y)
    tl.store(lse_ptr + (i_b * n_heads + i_h) * T + o_q, greatest + tl.log(total), o_q < T)
    if i_h == 0:
        tl.store(forgotten_ptr + i_b * T + o_q, forgotten, o_q < T)


def attend(q: Tensor, k: Tensor, v: Tensor, selection: Selection, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The forward pass.

    Args:
        q: queries `[B, H, T, K]`, of any strides but 1 within a row; head 0 selects.
        k: keys `[B, Hk, T, K]`, likewise.
        v: values, likewise.
        selection: what is selected.
        block: rows of a tile.

    Returns:
        The mixed values `[B, H, T, K]`, in memory as `[B, T, H, K]`; what each query has forgotten `[B, T]`; and for
        the backward pass the log of each softmax's sum `[B, H, T]` and the carried sums `[B, T / BLOCK, T]`.
    """
    B, H, T, K = q.shape
    n_blocks = triton.cdiv(T, block)
    y, forgotten, lse, carried = outputs(q, selection.enabled, block)
    meta = constants(q, selection, block)
    if selection.enabled:
        _carried_kernel[(n_blocks, B)](q, k, carried, q.stride(), k.stride(), T, K, **meta)
    sizes = (q.stride(), k.stride(), v.stride(), T, K, H // k.shape[1])
    choices = {"limit": selection.limit, "SELECT": selection.enabled}
    _attention_kernel[(n_blocks, H, B)](q, k, v, carried, y, lse, forgotten, *sizes, **meta, **choices)
    return y, forgotten, lse, carried


def outputs(q: Tensor, enabled: bool, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for what `attend` returns."""
    B, H, T, K = q.shape
    y = q.new_empty(B, T, H, K).transpose(1, 2)
    sizes = ((B, T), (B, H, T), (B, -(-T // block), T) if enabled else (0,))
    forgotten, lse, carried = (q.new_empty(size, dtype=sum_dtype(q)) for size in sizes)
    return y, forgotten, lse, carried
