# ruff: noqa: TID253
"""Steering of lanes: what is added to their rows before a layer."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmzip_kernels.arithmetic import tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling


@triton.jit
def shift_kernel(x_ptr, shifts_ptr, lanes_ptr, steered_ptr, layer, n_layers, n_rows, width, y_ptr,
                 ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; x and y float32 `[R, D]`, shifts `[lanes, L + 1, D]`."""
    i_row, i, o, m = tile(n_rows, width, width, ROWS, BLOCK)
    x = tl.load(x_ptr + o, mask=m, other=0.0)
    lane = tl.load(lanes_ptr + i_row, mask=i_row < n_rows, other=0).to(tl.int64)
    steered = tl.load(steered_ptr + i_row, mask=i_row < n_rows, other=0) != 0
    o_shift = ((lane * n_layers + layer) * width)[:, None] + i[None, :]
    m_shift = m & steered[:, None]
    x = tl.where(m_shift, x + tl.load(shifts_ptr + o_shift, mask=m_shift, other=0.0), x)
    tl.store(y_ptr + o, x, mask=m)


def shift(
    x: torch.Tensor, shifts: torch.Tensor, lanes: torch.Tensor, steered: torch.Tensor, layer: int
) -> torch.Tensor:
    """Rows float32 `[R, D]` plus what their lanes' shifts `[lanes, L + 1, D]` are before a layer, where `steered`.

    Bit-equal to ARITHMETIC.md, equation (26); other rows stay as they are, bit for bit. Lanes and steered: int32 `[R]`.
    """
    y = torch.empty_like(x)
    tiles = tiling(len(x), power_of_two(x.shape[1]))
    shift_kernel[grid(len(x), tiles)](
        x, shifts, lanes, steered, layer, shifts.shape[1], len(x), x.shape[1], y, **tiles, **EXACT
    )  # fmt: skip
    return y
