# ruff: noqa: TID253
"""What the exact kernels are made of: rounding, quantising, exponential weights, shares. ARITHMETIC.md, section 4."""

from __future__ import annotations

import triton
import triton.language as tl

from llmzip.exact import matrix, reference, tables

# 1.5 * 2**23: adding and subtracting it rounds half to even below 2**22.
_ROUND = tl.constexpr(12582912.0)
_SMALLEST = tl.constexpr(float(matrix.SMALLEST))
_LOG2_E_STEPS = tl.constexpr(float(reference.LOG2_E_STEPS))
_EXP_LIMIT = tl.constexpr(float(reference.EXP_LIMIT))
_EXP_MASK = tl.constexpr(tables.EXP_STEPS - 1)
_EXP_BITS = tl.constexpr(tables.EXP_STEPS.bit_length() - 1)
_FREQUENCIES = tl.constexpr(1 << reference.FREQUENCY_BITS)


@triton.jit
def round_half_even(x):
    """`rint` of |x| < 2**22, as float32."""
    return (x + _ROUND) - _ROUND


@triton.jit
def inverse_and_scale(greatest, limit):
    """What rows of this greatest magnitude are multiplied by, and their scales. Source: equation (6)."""
    nonzero = greatest >= _SMALLEST
    safe = tl.where(nonzero, greatest, 1.0)
    limits = tl.zeros_like(safe) + limit
    inverse = tl.where(nonzero, tl.div_rn(limits, safe), 0.0)
    return inverse, tl.where(nonzero, tl.div_rn(safe, limits), 0.0)


@triton.jit
def quantised(x, limit):
    """Rows as int32 integers and their scales: `llmzip.exact.reference.quantise_rows`."""
    inverse, scale = inverse_and_scale(tl.max(tl.abs(x), axis=1), limit)
    return round_half_even(x * inverse[:, None]).to(tl.int32), scale


@triton.jit
def tile(n_rows, stride, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Rows and columns of a program's tile `[ROWS, BLOCK]`, offsets, and which elements are there."""
    i_row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i = tl.arange(0, BLOCK)
    offsets = i_row.to(tl.int64)[:, None] * stride + i[None, :]
    return i_row, i, offsets, (i_row < n_rows)[:, None] & (i < n)[None, :]


@triton.jit
def store_limbs(q, q_ptr, limb_stride, m, LIMBS: tl.constexpr):
    """Keep integers as int8, or as 128 * high + low, the low ones `limb_stride` further. Source: section 4.2."""
    if LIMBS == 1:
        tl.store(q_ptr, q.to(tl.int8), mask=m)
    else:
        high = (q + 64) >> 7
        tl.store(q_ptr, high.to(tl.int8), mask=m)
        tl.store(q_ptr + limb_stride, (q - 128 * high).to(tl.int8), mask=m)


@triton.jit
def rms_inverse(x, limit, width, eps):
    """What an RMS norm multiplies rows with, whose elements beyond `width` are 0. Source: equation (8)."""
    q, scale = quantised(x, limit)
    squares = tl.sum((q * q).to(tl.int64), axis=1).to(tl.float64)
    scale64 = scale.to(tl.float64)
    mean = (scale64 * scale64) * (squares / tl.cast(width, tl.float64))
    return (1.0 / tl.sqrt(mean + tl.cast(tl.cast(eps, tl.float32), tl.float64))).to(tl.float32)


@triton.jit
def exp_weights(distance, table_ptr):
    """`llmzip.exact.reference.exp_weights`."""
    steps = round_half_even(tl.minimum(distance * _LOG2_E_STEPS, _EXP_LIMIT)).to(tl.int32)
    return tl.load(table_ptr + (steps & _EXP_MASK)) >> (steps >> _EXP_BITS)


@triton.jit
def shares(weights, i, n):
    """`llmzip.exact.reference.frequencies` as float32, of int64 weights `[M, N]` of choices `i`, 0 from `n` on."""
    total = _FREQUENCIES - tl.cast(n, tl.int64)
    share = weights * total // tl.maximum(tl.sum(weights, axis=1), 1)[:, None]
    best = tl.min(tl.where(weights == tl.max(weights, axis=1)[:, None], i[None, :], n), axis=1)
    left = total - tl.sum(share, axis=1)
    return tl.where(i[None, :] == best[:, None], share + left[:, None], share).to(tl.float32)
