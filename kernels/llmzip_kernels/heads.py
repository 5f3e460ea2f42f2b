# ruff: noqa: TID253
"""Heads of queries, keys and values: normed, rotated, quantised, and put where attention reads them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from llmzip.exact.matrix import NORM_LIMIT, ONE_LIMB
from llmzip_kernels.arithmetic import quantised, rms_inverse
from llmzip_kernels.launching import EXACT, grid, power_of_two, round_up, tiling

_ONE_LIMB = tl.constexpr(float(ONE_LIMB))
_NORM_LIMIT = tl.constexpr(float(NORM_LIMIT))


class Heads(NamedTuple):
    """How the heads of a row lie side by side.

    Attributes:
        n_heads: of queries, first.
        n_kv_heads: of keys, then as many of values.
        width: channels of each.
    """

    n_heads: int
    n_kv_heads: int
    width: int

    @property
    def padded(self) -> int:
        """Channels of a quantised head."""
        return round_up(self.width, 16)


class HeadNorms(NamedTuple):
    """RMS norms of each head of queries and of keys, weights float32 `[K]`."""

    query: torch.Tensor
    key: torch.Tensor
    eps: float


class Rotation(NamedTuple):
    """Tables of angles float32 `[S, W / 2]`."""

    cos: torch.Tensor
    sin: torch.Tensor


class Store(NamedTuple):
    """Quantised keys and values of a layer, with a scale a head and position, zeros beyond their width K.

    Attributes:
        keys: int8 `[lanes, Hk, S, Kp]`.
        values: int8 `[lanes, Hk, Kp, S]`.
        key_scale, value_scale: float32 `[lanes, Hk, S]`.
    """

    keys: torch.Tensor
    key_scale: torch.Tensor
    values: torch.Tensor
    value_scale: torch.Tensor


def new_store(n_lanes: int, heads: Heads, capacity: int, device: torch.device) -> Store:
    """Zeros for so many lanes."""
    store = new_rows_store(n_lanes, heads, device, capacity)
    for tensor in store:
        tensor.zero_()
    return store


def new_rows_store(n_rows: int, heads: Heads, device: torch.device, capacity: int = 1) -> Store:
    """Room for the keys and values of rows, a lane each; `quantise_heads` fills all of it."""
    n_heads, padded = heads.n_kv_heads, heads.padded
    keys = torch.empty((n_rows, n_heads, capacity, padded), dtype=torch.int8, device=device)
    values = torch.empty((n_rows, n_heads, padded, capacity), dtype=torch.int8, device=device)
    scales = [torch.empty((n_rows, n_heads, capacity), dtype=torch.float32, device=device) for _ in range(2)]
    return Store(keys, scales[0], values, scales[1])


@triton.jit
def prepared(x_ptr, o_x, norm_ptr, eps, cos_ptr, sin_ptr, half, i, m_row, o_angles, width,
             NORMED: tl.constexpr, ROTATED: tl.constexpr):  # fmt: skip
    """One head of some rows, normed by itself and rotated: `llmzip.exact.reference.rms_norm` and `rotate`."""
    m = m_row[:, None] & (i < width)[None, :]
    x = tl.load(x_ptr + o_x[:, None] + i[None, :], mask=m, other=0.0)
    if NORMED:
        inverse = rms_inverse(x, _NORM_LIMIT, width, eps)
        x = (x * inverse[:, None]) * tl.load(norm_ptr + i, mask=i < width, other=0.0)[None, :]
    if ROTATED:
        turns = i < 2 * half
        # The other channel of each one's pair.
        i_other = tl.where(i < half, i + half, i - half)
        m_turned = m_row[:, None] & turns[None, :]
        other = tl.load(x_ptr + o_x[:, None] + i_other[None, :], mask=m_turned, other=0.0)
        if NORMED:
            other = (other * inverse[:, None]) * tl.load(norm_ptr + i_other, mask=turns, other=0.0)[None, :]
        o = o_angles[:, None] + tl.where(i < half, i, i_other)[None, :]
        cos = tl.load(cos_ptr + o, mask=m_turned, other=0.0)
        sin = tl.load(sin_ptr + o, mask=m_turned, other=0.0)
        turned = tl.where((i < half)[None, :], x * cos - other * sin, x * cos + other * sin)
        x = tl.where(m_turned, turned, x)
    return x


@triton.jit
def heads_kernel(x_ptr, x_stride, query_norm_ptr, key_norm_ptr, eps, cos_ptr, sin_ptr, half, positions_ptr, lanes_ptr,
                 places_ptr, q_ptr, q_scale_ptr, keys_ptr, key_scale_ptr, values_ptr, value_scale_ptr,
                 n_rows, n_heads, n_kv_heads, width, padded, capacity,
                 NORMED: tl.constexpr, ROTATED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One head of some rows a program; x float32 `[R, (H + 2 * Hk) * K]`, q int8 `[R, H, Kp]`; others as in `Store`.

    positions (of angles), lanes and places (of keys and values): int32 `[R]`.
    """
    i_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    i_head = tl.program_id(1)
    i = tl.arange(0, BLOCK)
    m_row = i_row < n_rows
    m = m_row[:, None] & (i < padded)[None, :]
    o_x = i_row * x_stride + i_head * width
    o_angles = tl.load(positions_ptr + i_row, mask=m_row, other=0).to(tl.int64) * half
    if i_head < n_heads:
        x = prepared(
            x_ptr, o_x, query_norm_ptr, eps, cos_ptr, sin_ptr, half, i, m_row, o_angles, width, NORMED, ROTATED
        )
        q, scale = quantised(x, _ONE_LIMB)
        o_head = i_row * n_heads + i_head
        tl.store(q_ptr + o_head[:, None] * padded + i[None, :], q.to(tl.int8), mask=m)
        tl.store(q_scale_ptr + o_head, scale, mask=m_row)
    else:
        lane = tl.load(lanes_ptr + i_row, mask=m_row, other=0).to(tl.int64)
        place = tl.load(places_ptr + i_row, mask=m_row, other=0)
        if i_head < n_heads + n_kv_heads:
            x = prepared(
                x_ptr, o_x, key_norm_ptr, eps, cos_ptr, sin_ptr, half, i, m_row, o_angles, width, NORMED, ROTATED
            )
            q, scale = quantised(x, _ONE_LIMB)
            o_place = (lane * n_kv_heads + i_head - n_heads) * capacity + place
            tl.store(keys_ptr + o_place[:, None] * padded + i[None, :], q.to(tl.int8), mask=m)
            tl.store(key_scale_ptr + o_place, scale, mask=m_row)
        else:
            x = prepared(x_ptr, o_x, x_ptr, eps, x_ptr, x_ptr, half, i, m_row, o_angles, width, False, False)
            q, scale = quantised(x, _ONE_LIMB)
            o_head = lane * n_kv_heads + i_head - n_heads - n_kv_heads
            o_value = (o_head[:, None] * padded + i[None, :]) * capacity + place[:, None]
            tl.store(values_ptr + o_value, q.to(tl.int8), mask=m)
            tl.store(value_scale_ptr + o_head * capacity + place, scale, mask=m_row)


def quantise_heads(
    x: torch.Tensor,
    heads: Heads,
    norms: HeadNorms | None,
    rotation: Rotation | None,
    positions: torch.Tensor,
    store: Store,
    lanes: torch.Tensor,
    places: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norm, rotate and quantise heads `[R, (H + 2 * Hk) * K]`; keys and values go to their lanes' places of the store.

    Returns:
        The queries: int8 `[R, H, Kp]` and their scales `[R, H]`.

    Bit-equal to `llmzip.exact.reference.rms_norm`, `rotate` and `quantise_rows` of each head.
    """
    q = torch.empty((len(x), heads.n_heads, heads.padded), dtype=torch.int8, device=x.device)
    q_scale = torch.empty((len(x), heads.n_heads), dtype=torch.float32, device=x.device)
    tiles = tiling(len(x), power_of_two(heads.padded))
    cos, sin = rotation or (x, x)
    query_norm, key_norm, eps = norms or (x, x, 0.0)
    heads_kernel[(*grid(len(x), tiles), heads.n_heads + 2 * heads.n_kv_heads)](
        x, x.stride(0), query_norm, key_norm, eps, cos, sin, cos.shape[1] if rotation else 0, positions, lanes, places,
        q, q_scale, *store, len(x), heads.n_heads, heads.n_kv_heads, heads.width, heads.padded, store.keys.shape[2],
        NORMED=norms is not None, ROTATED=rotation is not None, **tiles, **EXACT,
    )  # fmt: skip
    return q, q_scale


@triton.jit
def rotate_kernel(x_ptr, cos_ptr, sin_ptr, half, positions_ptr, y_ptr, n_rows, n_heads, width,
                  ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One head of some rows a program; x and y float32 `[R, H, K]`, positions int32 `[R]`."""
    i_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    i = tl.arange(0, BLOCK)
    m_row = i_row < n_rows
    o_x = (i_row * n_heads + tl.program_id(1)) * width
    o_angles = tl.load(positions_ptr + i_row, mask=m_row, other=0).to(tl.int64) * half
    y = prepared(x_ptr, o_x, x_ptr, 0.0, cos_ptr, sin_ptr, half, i, m_row, o_angles, width, False, True)
    tl.store(y_ptr + o_x[:, None] + i[None, :], y, mask=m_row[:, None] & (i < width)[None, :])


def rotate(x: torch.Tensor, rotation: Rotation, positions: torch.Tensor) -> torch.Tensor:
    """Rotate heads float32 `[R, H, K]` by the angles of their rows' positions.

    Bit-equal to `llmzip.exact.reference.rotate`.
    """
    y = torch.empty_like(x)
    tiles = tiling(len(x), power_of_two(x.shape[2]))
    rotate_kernel[(*grid(len(x), tiles), x.shape[1])](
        x, *rotation, rotation.cos.shape[1], positions, y, *x.shape, **tiles, **EXACT
    )  # fmt: skip
    return y
