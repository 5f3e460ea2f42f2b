# ruff: noqa: TID253
"""Rows of the residual stream before the first layer: tokens, rows of a prefix, learned positions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmzip_kernels.arithmetic import tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling


@triton.jit
def embed_kernel(tokens_ptr, positions_ptr, q_ptr, q_stride, scale_ptr, n_tokens, factor, prefix_ptr, learned_ptr,
                 y_ptr, n_rows, width, LEARNED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; tokens and positions int32 `[R]`, q int8 of `q_stride`, scale `[V]`, the others float32."""
    i_row, i, o, m = tile(n_rows, width, width, ROWS, BLOCK)
    token = tl.load(tokens_ptr + i_row, mask=i_row < n_rows, other=0).to(tl.int64)
    given = token >= n_tokens
    m_known, m_given = m & (token < n_tokens)[:, None], m & given[:, None]
    q = tl.load(q_ptr + token[:, None] * q_stride + i[None, :], mask=m_known, other=0)
    scale = tl.load(scale_ptr + token, mask=token < n_tokens, other=0.0)
    y = (q.to(tl.float32) * scale[:, None]) * factor
    o_prefix = (token - n_tokens)[:, None] * width + i[None, :]
    y = tl.where(m_given, tl.load(prefix_ptr + o_prefix, mask=m_given, other=0.0), y)
    if LEARNED:
        position = tl.load(positions_ptr + i_row, mask=i_row < n_rows, other=0).to(tl.int64)
        y = y + tl.load(learned_ptr + position[:, None] * width + i[None, :], mask=m, other=0.0)
    tl.store(y_ptr + o, y, mask=m)


def embed(
    tokens: torch.Tensor,
    positions: torch.Tensor,
    q: torch.Tensor,
    scale: torch.Tensor,
    n_tokens: int,
    factor: float,
    prefix: torch.Tensor,
    learned: torch.Tensor | None,
) -> torch.Tensor:
    """Embeddings float32 `[R, D]` of tokens int32 `[R]`; ids from `n_tokens` on are rows of `prefix` `[P, D]`.

    Bit-equal to ARITHMETIC.md, sections 6.1 and 6.4, before runs of tokens; a factor of 1 changes no bit.

    Args:
        tokens: int32 `[R]`.
        positions: int32 `[R]`.
        q: int8, a row a token, at least D columns.
        scale: of each row.
        n_tokens: V.
        factor: what embeddings are multiplied by.
        prefix: rows that stand for themselves.
        learned: float32 `[S, D]`, or None.
    """
    width = prefix.shape[1]
    y = torch.empty((len(tokens), width), dtype=torch.float32, device=tokens.device)
    tiles = tiling(len(tokens), power_of_two(width))
    embed_kernel[grid(len(tokens), tiles)](
        tokens, positions, q, q.stride(0), scale, n_tokens, factor, prefix, prefix if learned is None else learned, y,
        len(tokens), width, LEARNED=learned is not None, **tiles, **EXACT,
    )  # fmt: skip
    return y
