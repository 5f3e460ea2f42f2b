# ruff: noqa: TID253
"""Attention of rows over what their lanes keep, up to their own positions."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from llmzip_kernels.activation import exp2_on
from llmzip_kernels.heads import Heads, Store
from llmzip_kernels.launching import EXACT, power_of_two
from llmzip_kernels.mixing import BLOCK_S, attend, stages

# Queries of a tile: of a step only those of one row are there, and products of int8 need 16.
_STEP_QUERIES, _PREFILL_QUERIES = 16, 32
_BLOCK_S = tl.constexpr(BLOCK_S)


def rows_together(heads: Heads, *, step: bool) -> int:
    """Rows of a lane in one tile."""
    group = heads.n_heads // heads.n_kv_heads
    return 1 if step else max(1, _PREFILL_QUERIES // group)


def cut(segments: NDArray[np.int32], n_rows: int) -> NDArray[np.int32]:
    """Segments (lane, first row, rows, position) cut into those of at most so many rows: the tiles of attention."""
    n_tiles = -(-segments[:, 2] // n_rows)
    tiles = np.repeat(segments, n_tiles, axis=0)
    ends = np.cumsum(n_tiles)
    done = (np.arange(len(tiles), dtype=np.int32) - np.repeat(ends - n_tiles, n_tiles)) * n_rows
    tiles[:, 1] += done
    tiles[:, 2] = np.minimum(n_rows, tiles[:, 2] - done)
    tiles[:, 3] += done
    return tiles


@triton.jit
def attention_kernel(q_ptr, q_scale_ptr, tiles_ptr, keys_ptr, key_scale_ptr, values_ptr, value_scale_ptr, table_ptr,
                     y_ptr, scale, window, n_heads, n_kv_heads, width, padded, capacity,
                     GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """The queries of one key head in a tile of rows a program.

    q int8 `[R, H, Kp]` and its scales `[R, H]`, tiles int32 `[n, 4]`, keys and the like as in `Store`, y float32
    `[R, H, K]`.
    """
    tile_ptr = tiles_ptr + tl.program_id(0) * 4
    i_head = tl.program_id(1)
    lane, row = tl.load(tile_ptr).to(tl.int64), tl.load(tile_ptr + 1).to(tl.int64)
    n_rows, position = tl.load(tile_ptr + 2), tl.load(tile_ptr + 3)
    i_m = tl.arange(0, BLOCK_M)
    i_c = tl.arange(0, BLOCK_C)
    m_m = i_m // GROUP < n_rows
    own = position + i_m // GROUP
    first = tl.zeros((BLOCK_M,), tl.int32)
    low = position * 0
    if window > 0:
        first = own + 1 - window
        low = tl.maximum(position + 1 - window, 0) // _BLOCK_S * _BLOCK_S
    o_query = (row + i_m // GROUP) * n_heads + i_head * GROUP + i_m % GROUP
    q = tl.load(q_ptr + o_query[:, None] * padded + i_c[None, :], mask=m_m[:, None] & (i_c < padded)[None, :], other=0)
    z = tl.load(q_scale_ptr + o_query, mask=m_m, other=0.0) * scale
    o_head = (lane * n_kv_heads + i_head) * capacity
    y = attend(
        q, z, first, own, keys_ptr + o_head * padded, key_scale_ptr + o_head, values_ptr + o_head * padded,
        value_scale_ptr + o_head, key_scale_ptr, 0, table_ptr, low, position + n_rows, padded, capacity, i_c,
        False, BLOCK_M, BLOCK_C,
    )  # fmt: skip
    tl.store(y_ptr + o_query[:, None] * width + i_c[None, :], y, mask=m_m[:, None] & (i_c < width)[None, :])


def attention(
    q: torch.Tensor,
    q_scale: torch.Tensor,
    tiles: torch.Tensor,
    store: Store,
    heads: Heads,
    scale: float,
    window: int,
    *,
    step: bool,
) -> torch.Tensor:
    """Attend with quantised queries int8 `[R, H, Kp]` of the rows in tiles int32 `[n, 4]`; float32 `[R, H * K]`.

    Bit-equal to `llmzip.exact.reference.attention` of each row and key head.
    """
    y = torch.empty((len(q), heads.n_heads * heads.width), dtype=torch.float32, device=q.device)
    group = heads.n_heads // heads.n_kv_heads
    block_m = max(power_of_two(group), _STEP_QUERIES if step else _PREFILL_QUERIES)
    attention_kernel[(len(tiles), heads.n_kv_heads)](
        q, q_scale, tiles, *store, exp2_on(q.device), y, scale, window, heads.n_heads, heads.n_kv_heads, heads.width,
        heads.padded, store.keys.shape[2],
        GROUP=group, BLOCK_M=block_m, BLOCK_C=power_of_two(max(32, heads.padded)), num_warps=4,
        num_stages=stages(block_m), **EXACT,
    )  # fmt: skip
    return y
