# ruff: noqa: TID253
"""The backward pass of selective attention for training.

F falls on the scores of all heads, so the gradient of S at a query is the sum of those of F, over the heads and over
all later queries. That is linear in the heads: each program turns its own share of the gradient of F into its share of
the gradients of the selecting queries and keys, and the shares are added up at the end, in one order. Tiles of keys go
from the last queries to the first with the sum over later ones, and leave it to the programs with tiles of queries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmzip_kernels.training_selective_attention_tiles import (
    Selection,
    constants,
    load_rows,
    score_gradients,
    selection_tile,
    store_rows,
    sum_dtype,
)


@triton.jit
def _keys_kernel(
    q_ptr, k_ptr, v_ptr, dy_ptr, carried_ptr, lse_ptr, delta_ptr, d_forgotten_ptr,
    later_ptr, dk_ptr, dv_ptr, dk0_ptr, q_strides, k_strides, v_strides, dy_strides, T, K, GROUP,
    scale: tl.constexpr, limit: tl.constexpr, PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr,
    SELECT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A program has a tile of keys of one key head, and all heads that use it; later `[B, Hk, T / BLOCK, T]`."""
    n_blocks, n_kv_heads = tl.num_programs(0), tl.num_programs(1)
    i_n, i_kv, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_rows, o_width = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    o_k = i_n * BLOCK + o_rows
    q_ptr += i_b * q_strides[0]
    k_ptr += i_b * k_strides[0]
    dy_ptr += i_b * dy_strides[0]
    b_k = load_rows(k_ptr + i_kv * k_strides[1], k_strides[2], o_k, T, o_width, K)
    b_k0 = load_rows(k_ptr, k_strides[2], o_k, T, o_width, K)
    b_v = load_rows(v_ptr + i_b * v_strides[0] + i_kv * v_strides[1], v_strides[2], o_k, T, o_width, K)
    dtype = lse_ptr.dtype.element_ty
    dk, dv = tl.zeros([BLOCK, BLOCK_K], dtype), tl.zeros([BLOCK, BLOCK_K], dtype)
    dk0, later = tl.zeros([BLOCK, BLOCK_K], dtype), tl.zeros([BLOCK], dtype)
    for i_turn in range(n_blocks - i_n):
        i_m = n_blocks - 1 - i_turn
        o_q = i_m * BLOCK + o_rows
        forgetting, d_forgetting = tl.zeros([BLOCK, BLOCK], dtype), tl.zeros([BLOCK, BLOCK], dtype)
        if SELECT:
            b_q0 = load_rows(q_ptr, q_strides[2], o_q - 1, T, o_width, K)
            selection = selection_tile(b_q0, b_k0, o_q - 1, o_k, scale, PROTECT_FIRST, MASK_SELF, PRECISION)
            carried = tl.load(carried_ptr + (i_b * n_blocks + i_m) * T + o_k, o_k < T, other=0.0)
            forgetting = carried[None, :] + tl.cumsum(selection, axis=0)
            if i_kv == 0:
                penalty = tl.load(d_forgotten_ptr + i_b * T + o_q, o_q < T, other=0.0) / limit
                d_forgetting = tl.where(forgetting <= limit, penalty[:, None], 0.0)
        for i_h in range(i_kv * GROUP, (i_kv + 1) * GROUP):
            b_q = load_rows(q_ptr + i_h * q_strides[1], q_strides[2], o_q, T, o_width, K)
            b_dy = load_rows(dy_ptr + i_h * dy_strides[1], dy_strides[2], o_q, T, o_width, K)
            o_row = (i_b * n_kv_heads * GROUP + i_h) * T + o_q
            lse = tl.load(lse_ptr + o_row, o_q < T, other=0.0)
            delta = tl.load(delta_ptr + o_row, o_q < T, other=0.0)
            weights, d_scores = score_gradients(b_q, b_k, b_v, b_dy, forgetting, lse, delta, o_q, o_k, scale, PRECISION)
            dv += tl.dot(tl.trans(weights).to(b_dy.dtype), b_dy, input_precision=PRECISION)
            dk += tl.dot(tl.trans(d_scores).to(b_q.dtype), b_q, input_precision=PRECISION)
            d_forgetting -= d_scores
        if SELECT:
            tl.store(later_ptr + ((i_b * n_kv_heads + i_kv) * n_blocks + i_m) * T + o_k, later, o_k < T)
            d_selection = later[None, :] + tl.cumsum(d_forgetting, axis=0, reverse=True)
            d_selected = tl.where(selection > 0, d_selection, 0.0)
            dk0 += tl.dot(tl.trans(d_selected).to(b_q0.dtype), b_q0, input_precision=PRECISION)
            later += tl.sum(d_forgetting, axis=0)
    o_head = (i_b * n_kv_heads + i_kv) * T * K
    store_rows(dv_ptr + o_head, dv, o_k, T, o_width, K)
    store_rows(dk_ptr + o_head, dk * scale, o_k, T, o_width, K)
    if SELECT:
        store_rows(dk0_ptr + o_head, dk0 * scale, o_k, T, o_width, K)


@triton.jit
def _queries_kernel(
    q_ptr, k_ptr, v_ptr, dy_ptr, carried_ptr, lse_ptr, delta_ptr, d_forgotten_ptr,
    later_ptr, dq_ptr, dq0_ptr, q_strides, k_strides, v_strides, dy_strides, T, K, GROUP,
    scale: tl.constexpr, limit: tl.constexpr, PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr,
    SELECT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A program has a tile of queries of one head, the longest first."""
    n_blocks, n_heads = tl.num_programs(0), tl.num_programs(1)
    i_m, i_h, i_b = n_blocks - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    i_kv = i_h // GROUP
    o_rows, o_width = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    o_q = i_m * BLOCK + o_rows
    q_ptr += i_b * q_strides[0]
    k_ptr += i_b * k_strides[0]
    v_ptr += i_b * v_strides[0] + i_kv * v_strides[1]
    b_q = load_rows(q_ptr + i_h * q_strides[1], q_strides[2], o_q, T, o_width, K)
    b_q0 = load_rows(q_ptr, q_strides[2], o_q - 1, T, o_width, K)
    b_dy = load_rows(dy_ptr + i_b * dy_strides[0] + i_h * dy_strides[1], dy_strides[2], o_q, T, o_width, K)
    o_row = (i_b * n_heads + i_h) * T + o_q
    lse = tl.load(lse_ptr + o_row, o_q < T, other=0.0)
    delta = tl.load(delta_ptr + o_row, o_q < T, other=0.0)
    penalty = tl.load(d_forgotten_ptr + i_b * T + o_q, o_q < T, other=0.0) / limit
    later_ptr += ((i_b * (n_heads // GROUP) + i_kv) * n_blocks + i_m) * T
    dtype = lse_ptr.dtype.element_ty
    dq, dq0 = tl.zeros([BLOCK, BLOCK_K], dtype), tl.zeros([BLOCK, BLOCK_K], dtype)
    for i_n in range(i_m + 1):
        o_k = i_n * BLOCK + o_rows
        b_k = load_rows(k_ptr + i_kv * k_strides[1], k_strides[2], o_k, T, o_width, K)
        b_v = load_rows(v_ptr, v_strides[2], o_k, T, o_width, K)
        forgetting = tl.zeros([BLOCK, BLOCK], dtype)
        if SELECT:
            b_k0 = load_rows(k_ptr, k_strides[2], o_k, T, o_width, K)
            selection = selection_tile(b_q0, b_k0, o_q - 1, o_k, scale, PROTECT_FIRST, MASK_SELF, PRECISION)
            carried = tl.load(carried_ptr + (i_b * n_blocks + i_m) * T + o_k, o_k < T, other=0.0)
            forgetting = carried[None, :] + tl.cumsum(selection, axis=0)
        _, d_scores = score_gradients(b_q, b_k, b_v, b_dy, forgetting, lse, delta, o_q, o_k, scale, PRECISION)
        dq += tl.dot(d_scores.to(b_k.dtype), b_k, input_precision=PRECISION)
        if SELECT:
            d_forgetting = -d_scores
            if i_h == 0:
                d_forgetting += tl.where(forgetting <= limit, penalty[:, None], 0.0)
            # The sum over later tiles is that of all heads of the group: its first one sees to it.
            later = tl.load(later_ptr + o_k, (o_k < T) & (i_h % GROUP == 0), other=0.0)
            d_selection = later[None, :] + tl.cumsum(d_forgetting, axis=0, reverse=True)
            d_selected = tl.where(selection > 0, d_selection, 0.0)
            dq0 += tl.dot(d_selected.to(b_k0.dtype), b_k0, input_precision=PRECISION)
    o_head = (i_b * n_heads + i_h) * T * K
    store_rows(dq_ptr + o_head, dq * scale, o_q, T, o_width, K)
    if SELECT:
        store_rows(dq0_ptr + o_head, dq0 * scale, o_q, T, o_width, K)


def attend_backward(
    dy: Tensor, d_forgotten: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, carried: Tensor,
    selection: Selection, block: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The backward pass.

    Args:
        dy: gradient of the mixed values, `[B, H, T, K]`, of any strides but 1 within a row.
        d_forgotten: that of what each query has forgotten, `[B, T]`, contiguous.
        q: queries `[B, H, T, K]`, as they were.
        k: keys `[B, Hk, T, K]`, likewise.
        v: values, likewise.
        y: what the forward pass returned.
        lse: likewise.
        carried: likewise.
        selection: what was selected.
        block: rows of a tile.

    Returns:
        The gradients of `q`, `k` and `v`.
    """
    dtype = sum_dtype(q)
    delta = (dy.to(dtype) * y.to(dtype)).sum(dim=-1)
    dk, dv, dq = (torch.empty(x.shape, dtype=dtype, device=q.device) for x in (k, k, q))
    size = (*k.shape[:2], triton.cdiv(q.shape[2], block), q.shape[2])
    later = q.new_empty(size if selection.enabled else (0,), dtype=dtype)
    dk0, dq0 = (torch.empty_like(x) if selection.enabled else x for x in (dk, dq))
    inputs = (q, k, v, dy, carried, lse, delta, d_forgotten, later)
    B, H, T, K = q.shape
    n_blocks, n_kv_heads = triton.cdiv(T, block), k.shape[1]
    sizes = (q.stride(), k.stride(), v.stride(), dy.stride(), T, K, H // n_kv_heads)
    meta = constants(q, selection, block)
    meta |= {"limit": selection.limit, "SELECT": selection.enabled}
    n_warps = 8 if block >= 64 else 4
    _keys_kernel[(n_blocks, n_kv_heads, B)](*inputs, dk, dv, dk0, *sizes, **meta, num_warps=n_warps)
    _queries_kernel[(n_blocks, H, B)](*inputs, dq, dq0, *sizes, **meta)
    if selection.enabled:
        dk[:, 0] += dk0.sum(dim=1)
        # Its rows are those of the query after the one that selected.
        dq[:, 0, :-1] += dq0.sum(dim=1)[:, 1:]
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
