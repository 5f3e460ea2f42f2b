# ruff: noqa: TID253
"""Int8 products of quantised rows with a matrix, int32 sums, and what makes float32 of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix
from llmzip_kernels.launching import DEPTH, EXACT, power_of_two, round_up, to_device
from llmzip_kernels.quantise import LimbRows

# Columns of a matrix that one program computes.
COLUMNS = 64


@dataclass
class DeviceMatrix:
    """A `QuantisedMatrix` on the device, or several under each other that have one input and one limit.

    Attributes:
        q: int8 `[N, Kp]`; Kp is K rounded up to `DEPTH`, with zeros.
        scale: float32 `[N]`.
        bias: float32 `[N]`, or None.
        limit: what its input rows are quantised to.
        n_terms: K.
    """

    q: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    limit: int
    n_terms: int

    @property
    def wide(self) -> bool:
        """Whether a sum of products may leave int32."""
        return self.limit * ONE_LIMB * self.n_terms >= 1 << 31


def load_matrix(matrix: QuantisedMatrix) -> DeviceMatrix:
    """Lay out a matrix for `linear`."""
    n_terms = matrix.q.shape[1]
    q = torch.nn.functional.pad(to_device(matrix.q), (0, round_up(n_terms, DEPTH) - n_terms))
    bias = None if matrix.bias is None else to_device(matrix.bias)
    return DeviceMatrix(q, to_device(matrix.scale), bias, matrix.limit, n_terms)


def stack(matrices: Sequence[DeviceMatrix]) -> DeviceMatrix:
    """Matrices of one input and one limit as one; they become views of it."""
    first = matrices[0]
    q, scale = (torch.cat([getattr(matrix, name) for matrix in matrices]) for name in ("q", "scale"))
    bias = None if first.bias is None else torch.cat([matrix.bias for matrix in matrices if matrix.bias is not None])
    end = 0
    for matrix in matrices:
        begin, end = end, end + len(matrix.q)
        matrix.q, matrix.scale = q[begin:end], scale[begin:end]
        matrix.bias = None if bias is None else bias[begin:end]
    return DeviceMatrix(q, scale, bias, first.limit, first.n_terms)


@triton.jit
def linear_kernel(rows_ptr, row_scale_ptr, limb_stride, matrix_ptr, scale_ptr, bias_ptr, residual_ptr, y_ptr,
                  y_stride, n_rows, n_columns, n_padded,
                  LIMBS: tl.constexpr, WIDE: tl.constexpr, BIAS: tl.constexpr, ADDED: tl.constexpr,
                  BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """One tile `[BLOCK_M, BLOCK_N]` a program.

    rows int8 `[limbs, R, Kp]`, row_scale `[R]`; matrix int8 `[N, Kp]`, scale and bias `[N]`; the residual has the
    stride of y.
    """
    i_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    i_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    i_k = tl.arange(0, BLOCK_K)
    m_m = i_m < n_rows
    # Columns beyond the last are computed as that, and not stored.
    i_column = tl.minimum(i_n, n_columns - 1)
    o_rows = i_m.to(tl.int64)[:, None] * n_padded + i_k[None, :]
    o_matrix = i_column.to(tl.int64)[None, :] * n_padded + i_k[:, None]
    high = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    low = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for k in range(0, n_padded, BLOCK_K):
        b_matrix = tl.load(matrix_ptr + o_matrix + k)
        b_rows = tl.load(rows_ptr + o_rows + k, mask=m_m[:, None], other=0)
        high = tl.dot(b_rows, b_matrix, high, out_dtype=tl.int32)
        if LIMBS == 2:
            b_low = tl.load(rows_ptr + limb_stride + o_rows + k, mask=m_m[:, None], other=0)
            low = tl.dot(b_low, b_matrix, low, out_dtype=tl.int32)
    acc = high
    if LIMBS == 2:
        acc = high.to(tl.int64) * 128 + low if WIDE else high * 128 + low
    row_scale = tl.load(row_scale_ptr + i_m, mask=m_m, other=0.0)
    y = (acc.to(tl.float32) * row_scale[:, None]) * tl.load(scale_ptr + i_column)[None, :]
    if BIAS:
        y = y + tl.load(bias_ptr + i_column)[None, :]
    o_y = i_m.to(tl.int64)[:, None] * y_stride + i_n[None, :]
    m_y = m_m[:, None] & (i_n < n_columns)[None, :]
    if ADDED:
        y = tl.load(residual_ptr + o_y, mask=m_y, other=0.0) + y
    tl.store(y_ptr + o_y, y, mask=m_y)


def linear(
    rows: LimbRows, matrix: DeviceMatrix, residual: torch.Tensor | None = None, y: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply quantised rows with a matrix, and add the residual if there is one; `[R, N]`, into `y` if it is given.

    Bit-equal to `llmzip.exact.reference.linear`, plus the residual, as long as the sums of single limbs stay in
    int32: up to 133,144 terms.
    """
    n_rows = rows.q.shape[1]
    if y is None:
        y = torch.empty((n_rows, len(matrix.q)), dtype=torch.float32, device=rows.q.device)
    block_m = min(64, max(16, power_of_two(n_rows)))
    linear_kernel[(-(-len(matrix.q) // COLUMNS), -(-n_rows // block_m))](
        rows.q, rows.scale, rows.q.stride(0), matrix.q, matrix.scale, matrix.scale if matrix.bias is None else
        matrix.bias, y if residual is None else residual, y, y.stride(0), n_rows, len(matrix.q), matrix.q.shape[1],
        LIMBS=len(rows.q), WIDE=matrix.wide, BIAS=matrix.bias is not None, ADDED=residual is not None,
        BLOCK_M=block_m, BLOCK_N=COLUMNS, BLOCK_K=DEPTH, num_warps=4, num_stages=3, **EXACT,
    )  # fmt: skip
    return y
