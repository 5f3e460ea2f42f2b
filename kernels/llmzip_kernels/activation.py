# ruff: noqa: TID253
"""Activations of the MLP, plain and gated, into float32 or quantised."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from llmzip.exact import tables
from llmzip_kernels.arithmetic import exp_weights, quantised, store_limbs, tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling
from llmzip_kernels.quantise import LimbRows, new_rows

KINDS = {"silu": 0, "gelu_tanh": 1, "gelu": 2, "relu2": 3}
_UNIT = tl.constexpr(2.0**-24)
_CUBIC = tl.constexpr(0.044715)
_TWO_SQRT = tl.constexpr(1.5957691216)
_NORMAL_STEPS = tl.constexpr(float(tables.NORMAL_STEPS))
_LAST_PLACE = tl.constexpr(float(tables.NORMAL_STEPS * tables.NORMAL_LIMIT - 1))


@functools.cache
def exp2_on(device: torch.device) -> torch.Tensor:
    """The table of exponential weights, int32 `[1024]`."""
    return torch.from_numpy(tables.exp2_table().copy()).to(device)


@functools.cache
def normal_on(device: torch.device) -> torch.Tensor:
    """The table of the normal distribution function, float32 `[1537]`."""
    return torch.from_numpy(tables.normal_table().copy()).to(device)


@triton.jit
def times_sigmoid(x, u, table_ptr):
    """Source: ARITHMETIC.md, equation (12)."""
    e = exp_weights(tl.abs(u), table_ptr).to(tl.float32) * _UNIT
    return tl.div_rn(tl.where(u < 0, x * e, x), 1.0 + e)


@triton.jit
def gelu(x, table_ptr):
    """Source: ARITHMETIC.md, equation (14)."""
    place = tl.minimum(tl.abs(x) * _NORMAL_STEPS, _LAST_PLACE)
    index = place.to(tl.int32)
    fraction = place - index.to(tl.float32)
    low = tl.load(table_ptr + index)
    phi = low + (tl.load(table_ptr + index + 1) - low) * fraction
    return x * tl.where(x < 0, 1.0 - phi, phi)


@triton.jit
def activated(x, table_ptr, KIND: tl.constexpr):
    """The activation of this number; the table is the normal distribution's for `gelu`, else that of weights."""
    if KIND == 0:
        y = times_sigmoid(x, x, table_ptr)
    elif KIND == 1:
        y = times_sigmoid(x, (x + ((x * x) * x) * _CUBIC) * _TWO_SQRT, table_ptr)
    elif KIND == 2:
        y = gelu(x, table_ptr)
    else:
        positive = tl.maximum(x, 0.0)
        y = positive * positive
    return y


@triton.jit
def activate_kernel(gate_ptr, up_ptr, stride, table_ptr, y_ptr, n_rows, width,
                    KIND: tl.constexpr, GATED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; gate and up float32 of `stride`, y `[R, F]`."""
    _, _, o, m = tile(n_rows, stride, width, ROWS, BLOCK)
    _, _, o_y, m_y = tile(n_rows, width, width, ROWS, BLOCK)
    y = activated(tl.load(gate_ptr + o, mask=m, other=0.0), table_ptr, KIND)
    if GATED:
        y = y * tl.load(up_ptr + o, mask=m, other=0.0)
    tl.store(y_ptr + o_y, y, mask=m_y)


@triton.jit
def activate_rows_kernel(gate_ptr, up_ptr, stride, table_ptr, q_ptr, scale_ptr, limb_stride, n_rows, width, padded,
                         limit, KIND: tl.constexpr, GATED: tl.constexpr, LIMBS: tl.constexpr,
                         ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; gate and up float32 of `stride`, q int8 `[limbs, R, Fp]`, scale float32 `[R]`."""
    _, _, o, m = tile(n_rows, stride, width, ROWS, BLOCK)
    i_row, _, o_q, m_q = tile(n_rows, padded, padded, ROWS, BLOCK)
    y = activated(tl.load(gate_ptr + o, mask=m, other=0.0), table_ptr, KIND)
    if GATED:
        y = y * tl.load(up_ptr + o, mask=m, other=0.0)
    q, scale = quantised(y, limit)
    store_limbs(q, q_ptr + o_q, limb_stride, m_q, LIMBS)
    tl.store(scale_ptr + i_row, scale, mask=i_row < n_rows)


def activate(kind: str, gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
    """Activate `gate` `[R, F]`, times `up` if there is one; both have one stride.

    Bit-equal to `llmzip.exact.reference.ACTIVATIONS[kind]`, times `up`.
    """
    y = torch.empty(gate.shape, dtype=torch.float32, device=gate.device)
    tiles = tiling(len(gate), power_of_two(gate.shape[1]))
    activate_kernel[grid(len(gate), tiles)](
        gate, gate if up is None else up, gate.stride(0), _table(kind, gate.device), y, len(gate), gate.shape[1],
        KIND=KINDS[kind], GATED=up is not None, **tiles, **EXACT,
    )  # fmt: skip
    return y


def activate_rows(kind: str, gate: torch.Tensor, up: torch.Tensor | None, limit: int) -> LimbRows:
    """`activate`, then quantise.

    Bit-equal to `llmzip.exact.reference.quantise_rows` of what `activate` gives.
    """
    rows = new_rows(len(gate), gate.shape[1], limit, gate.device)
    padded = rows.q.shape[2]
    tiles = tiling(len(gate), power_of_two(padded))
    activate_rows_kernel[grid(len(gate), tiles)](
        gate, gate if up is None else up, gate.stride(0), _table(kind, gate.device), rows.q, rows.scale,
        rows.q.stride(0), len(gate), gate.shape[1], padded, float(limit),
        KIND=KINDS[kind], GATED=up is not None, LIMBS=len(rows.q), **tiles, **EXACT,
    )  # fmt: skip
    return rows


def _table(kind: str, device: torch.device) -> torch.Tensor:
    return normal_on(device) if kind == "gelu" else exp2_on(device)
