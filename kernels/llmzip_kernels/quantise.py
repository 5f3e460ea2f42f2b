# ruff: noqa: TID253
"""Rows of float32 to int8 limbs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from llmzip.exact.matrix import ONE_LIMB
from llmzip_kernels.arithmetic import quantised, store_limbs, tile
from llmzip_kernels.launching import DEPTH, EXACT, grid, power_of_two, round_up, tiling


class LimbRows(NamedTuple):
    """Quantised rows on the device.

    Attributes:
        q: int8 `[limbs, R, Dp]`, high limbs first; Dp is D rounded up to `DEPTH`, with zeros.
        scale: float32 `[R]`.
        limit: greatest magnitude of the integers, 127 in one limb or 8191 in two.
    """

    q: torch.Tensor
    scale: torch.Tensor
    limit: int


@triton.jit
def quantise_kernel(x_ptr, x_stride, q_ptr, scale_ptr, limb_stride, n_rows, width, padded, limit,
                    LIMBS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; x float32 `[R, D]`, q int8 `[limbs, R, Dp]`, scale float32 `[R]`."""
    _, _, o_x, m_x = tile(n_rows, x_stride, width, ROWS, BLOCK)
    i_row, _, o_q, m_q = tile(n_rows, padded, padded, ROWS, BLOCK)
    q, scale = quantised(tl.load(x_ptr + o_x, mask=m_x, other=0.0), limit)
    store_limbs(q, q_ptr + o_q, limb_stride, m_q, LIMBS)
    tl.store(scale_ptr + i_row, scale, mask=i_row < n_rows)


def quantise_rows(x: torch.Tensor, limit: int) -> LimbRows:
    """Quantise float32 rows `[R, D]`.

    Bit-equal to `llmzip.exact.reference.quantise_rows` for limits of 127 and 8191.
    """
    rows = new_rows(len(x), x.shape[1], limit, x.device)
    padded = rows.q.shape[2]
    tiles = tiling(len(x), power_of_two(padded))
    quantise_kernel[grid(len(x), tiles)](
        x, x.stride(0), rows.q, rows.scale, rows.q.stride(0), len(x), x.shape[1], padded, float(limit),
        LIMBS=len(rows.q), **tiles, **EXACT,
    )  # fmt: skip
    return rows


def new_rows(n_rows: int, width: int, limit: int, device: torch.device) -> LimbRows:
    """Room for quantised rows; a kernel fills all of it."""
    limbs = 1 if limit <= ONE_LIMB else 2
    q = torch.empty((limbs, n_rows, round_up(width, DEPTH)), dtype=torch.int8, device=device)
    return LimbRows(q, torch.empty(n_rows, dtype=torch.float32, device=device), limit)
