# ruff: noqa: TID253
"""Embeddings of runs of tokens, found by a hash in n-gram tables."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmzip.exact.reference import HASH_MULTIPLIERS
from llmzip_kernels.arithmetic import tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling

# Rows whose runs one program finds.
_ROWS = 64
_M0, _M1, _M2, _M3 = (tl.constexpr(multiplier) for multiplier in HASH_MULTIPLIERS)


@triton.jit
def find_runs_kernel(tokens_ptr, lanes_ptr, positions_ptr, firsts_ptr, kept_ptr, runs_ptr, n_rows, n_tokens, bos_id,
                     capacity, REACH: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Some rows a program; what stands before their segments was kept by earlier calls."""
    i_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m = i_row < n_rows
    position = tl.load(positions_ptr + i_row, mask=m, other=0)
    before = i_row - tl.load(firsts_ptr + i_row, mask=m, other=0)
    kept_ptr += tl.load(lanes_ptr + i_row, mask=m, other=0).to(tl.int64) * capacity + position
    for back in tl.static_range(REACH):
        own = back <= before
        token = tl.load(tokens_ptr + i_row - back, mask=m & own, other=0)
        token = tl.where(token < n_tokens, token, bos_id)
        kept = tl.load(kept_ptr - back, mask=m & (back > before) & (back <= position), other=0)
        token = tl.where(own, token, tl.where(back <= position, kept, bos_id))
        tl.store(runs_ptr + i_row * REACH + back, token, mask=m)
        if back == 0:
            tl.store(kept_ptr, token, mask=m)


def find_runs(
    tokens: torch.Tensor,
    lanes: torch.Tensor,
    positions: torch.Tensor,
    firsts: torch.Tensor,
    kept: torch.Tensor,
    n_tokens: int,
    bos_id: int,
    reach: int,
) -> torch.Tensor:
    """The runs that end in tokens int32 `[R]`, `[R, reach]`, the last token first; keeps the tokens of each lane.

    Equal to ARITHMETIC.md, section 6.1: BOS stands before a window, and for ids from `n_tokens` on.

    Args:
        tokens: of neighbouring positions of some lanes.
        lanes: int32 `[R]`.
        positions: int32 `[R]`.
        firsts: int32 `[R]`, the first row of each row's segment.
        kept: int32 `[lanes, S]`, tokens at their positions.
        n_tokens: V.
        bos_id: BOS.
        reach: tokens of a run.
    """
    runs = torch.empty((len(tokens), reach), dtype=torch.int32, device=tokens.device)
    find_runs_kernel[(-(-len(tokens) // _ROWS),)](
        tokens, lanes, positions, firsts, kept, runs, len(tokens), n_tokens, bos_id, kept.shape[1],
        REACH=reach, ROWS=_ROWS, num_warps=1, **EXACT,
    )  # fmt: skip
    return runs


@triton.jit
def hashed(h, token, MULTIPLIER: tl.constexpr):
    """One more token of a run, in words of 32 bits."""
    return h ^ (token.to(tl.uint32) * tl.full((), MULTIPLIER, tl.uint32))


@triton.jit
def embed_runs_kernel(x_ptr, q_ptr, scale_ptr, runs_ptr, y_ptr, n_rows, table_rows, shift, width,
                      TABLES: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; x, y float32 `[R, T * D]`, q int8 `[T, rows, D]`, scale `[T, rows]`, runs `[R, T + 1]`."""
    i_row, i, o_x, m = tile(n_rows, width * TABLES, width, ROWS, BLOCK)
    m_row = i_row < n_rows
    runs_ptr += i_row.to(tl.int64) * (TABLES + 1)
    h = hashed(tl.zeros((ROWS,), tl.uint32), tl.load(runs_ptr, mask=m_row, other=0), _M0)
    for table in tl.static_range(TABLES):
        token = tl.load(runs_ptr + table + 1, mask=m_row, other=0)
        if table == 0:
            h = hashed(h, token, _M1)
        elif table == 1:
            h = hashed(h, token, _M2)
        else:
            h = hashed(h, token, _M3)
        word = h * tl.full((), _M0, tl.uint32)
        o_row = table * tl.cast(table_rows, tl.int64) + (word >> tl.cast(shift, tl.uint32)).to(tl.int64)
        q = tl.load(q_ptr + o_row[:, None] * width + i[None, :], mask=m, other=0)
        found = q.to(tl.float32) * tl.load(scale_ptr + o_row, mask=m_row, other=0.0)[:, None]
        x = tl.load(x_ptr + o_x + table * width, mask=m, other=0.0)
        tl.store(y_ptr + o_x + table * width, x + found, mask=m)


def embed_runs(x: torch.Tensor, q: torch.Tensor, scale: torch.Tensor, runs: torch.Tensor) -> torch.Tensor:
    """Add to rows float32 `[R, D]` what tables int8 `[T, rows, D / T]` with scales hold for runs int32 `[R, T + 1]`.

    Bit-equal to `llmzip.exact.reference.embed_runs`.
    """
    y = torch.empty_like(x)
    n_tables, table_rows, width = q.shape
    tiles = tiling(len(x), power_of_two(width))
    embed_runs_kernel[grid(len(x), tiles)](
        x, q, scale, runs, y, len(x), table_rows, 33 - table_rows.bit_length(), width,
        TABLES=n_tables, **tiles, **EXACT,
    )  # fmt: skip
    return y
