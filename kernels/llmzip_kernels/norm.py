# ruff: noqa: TID253
"""RMS norm and layer norm of rows, into float32 or quantised."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmzip.exact.matrix import NORM_LIMIT
from llmzip_kernels.arithmetic import quantised, rms_inverse, store_limbs, tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling
from llmzip_kernels.quantise import LimbRows, new_rows

_NORM_LIMIT = tl.constexpr(float(NORM_LIMIT))


@triton.jit
def normed(x_ptr, weight_ptr, bias_ptr, width, eps, i, o, m, SUBTRACT_MEAN: tl.constexpr):
    """Rows, 0 beyond `width`: `llmzip.exact.reference.rms_norm` or `layer_norm` (with bias)."""
    x = tl.load(x_ptr + o, mask=m, other=0.0)
    if SUBTRACT_MEAN:
        q, scale = quantised(x, _NORM_LIMIT)
        total = tl.sum(q.to(tl.int64), axis=1).to(tl.float64)
        mean = (scale.to(tl.float64) * (total / tl.cast(width, tl.float64))).to(tl.float32)
        x = tl.where(m, x - mean[:, None], 0.0)
    weight = tl.load(weight_ptr + i, mask=i < width, other=0.0)
    y = (x * rms_inverse(x, _NORM_LIMIT, width, eps)[:, None]) * weight[None, :]
    if SUBTRACT_MEAN:
        y = y + tl.load(bias_ptr + i, mask=i < width, other=0.0)[None, :]
    return y


@triton.jit
def norm_kernel(x_ptr, weight_ptr, bias_ptr, residual_ptr, y_ptr, n_rows, width, eps,
                SUBTRACT_MEAN: tl.constexpr, ADDED: tl.constexpr,
                ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; x, y and the residual float32 `[R, D]`."""
    _, i, o, m = tile(n_rows, width, width, ROWS, BLOCK)
    y = normed(x_ptr, weight_ptr, bias_ptr, width, eps, i, o, m, SUBTRACT_MEAN)
    if ADDED:
        y = tl.load(residual_ptr + o, mask=m, other=0.0) + y
    tl.store(y_ptr + o, y, mask=m)


@triton.jit
def norm_rows_kernel(x_ptr, weight_ptr, bias_ptr, q_ptr, scale_ptr, limb_stride, n_rows, width, padded, eps, limit,
                     SUBTRACT_MEAN: tl.constexpr, LIMBS: tl.constexpr,
                     ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; x float32 `[R, D]`, q int8 `[limbs, R, Dp]`, scale float32 `[R]`."""
    _, i, o_x, m_x = tile(n_rows, width, width, ROWS, BLOCK)
    i_row, _, o_q, m_q = tile(n_rows, padded, padded, ROWS, BLOCK)
    y = normed(x_ptr, weight_ptr, bias_ptr, width, eps, i, o_x, m_x, SUBTRACT_MEAN)
    q, scale = quantised(y, limit)
    store_limbs(q, q_ptr + o_q, limb_stride, m_q, LIMBS)
    tl.store(scale_ptr + i_row, scale, mask=i_row < n_rows)


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Norm rows `[R, D]`: a layer norm where there is a bias; then add them to the residual, if there is one.

    Bit-equal to `llmzip.exact.reference.rms_norm` and `layer_norm`.
    """
    y = torch.empty_like(x)
    tiles = tiling(len(x), power_of_two(x.shape[1]))
    norm_kernel[grid(len(x), tiles)](
        x, weight, weight if bias is None else bias, x if residual is None else residual, y, len(x), x.shape[1], eps,
        SUBTRACT_MEAN=bias is not None, ADDED=residual is not None, **tiles, **EXACT,
    )  # fmt: skip
    return y


def norm_rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, limit: int) -> LimbRows:
    """Norm rows `[R, D]` and quantise them.

    Bit-equal to `llmzip.exact.reference.quantise_rows` of `rms_norm` or `layer_norm`.
    """
    rows = new_rows(len(x), x.shape[1], limit, x.device)
    padded = rows.q.shape[2]
    tiles = tiling(len(x), power_of_two(padded))
    norm_rows_kernel[grid(len(x), tiles)](
        x, weight, weight if bias is None else bias, rows.q, rows.scale, rows.q.stride(0), len(x), x.shape[1], padded,
        eps, float(limit), SUBTRACT_MEAN=bias is not None, LIMBS=len(rows.q), **tiles, **EXACT,
    )  # fmt: skip
    return rows
