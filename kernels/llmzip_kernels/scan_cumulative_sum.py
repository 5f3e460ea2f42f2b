# ruff: noqa: TID253
"""Cumulative sums along one dimension, in float32 and float64, three ways; each with its gradient.

sequential: a program adds up some columns from the first row to the last: least memory traffic, longest chain, and an
    error that grows with the length.
blocks: sums of tiles, their cumulative sum, then all tiles at once, each from its carried sum: rows are read twice.
tree: Blelloch's up-sweep and down-sweep over the next power of two, a launch for each level. Source: Blelloch, "Prefix
    Sums and Their Applications", CMU-CS-90-190, section 1.2.

An exclusive sum leaves the row's own element out, by a shift and not by taking it off again. The gradient of a sum over
earlier rows is the sum over later ones of the gradient from above, by the same way: it begins with the last row.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

Method = Literal["sequential", "blocks", "tree"]
METHODS: tuple[Method, ...] = ("sequential", "blocks", "tree")
# Elements of a tile, and the most columns that it has.
_TILE = 2048
_COLUMNS = 32
_PAIRS = 1024


def cumulative_sum(
    x: Tensor, dim: int = -2, exclusive: bool = False, method: Method = "blocks", tile_rows: int | None = None
) -> Tensor:
    """Sums over all rows up to each row.

    Args:
        x: of any shape, float32 or float64.
        dim: along which rows are counted.
        exclusive: each sum leaves its own row out; the first is then 0.
        method: how, see above.
        tile_rows: rows of a tile of `blocks`, a power of two; None to choose them.

    Returns:
        The sums, of the shape and type of `x`. They can be differentiated, more than once.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"cumulative sum: expected float32 or float64, found {x.dtype}")
    sums = _CumulativeSum.apply(x.movedim(dim, -2) if x.dim() > 1 else x[:, None], exclusive, False, method, tile_rows)
    result: Tensor = sums.movedim(-2, dim) if x.dim() > 1 else sums[:, 0]
    return result


def cumulative_sum_reference(x: NDArray[Any], exclusive: bool = False, reverse: bool = False) -> NDArray[Any]:
    """The same along the first dimension, one row after the other; `reverse` begins with the last row."""
    sums = np.zeros_like(x)
    total = np.zeros_like(x[0])
    for t in range(len(x))[:: -1 if reverse else 1]:
        sums[t] = total
        total = total + x[t]
        if not exclusive:
            sums[t] = total
    return sums


class _CumulativeSum(torch.autograd.Function):
    """Sums over rows `[..., T, C]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exclusive: bool, reverse: bool, method: Method, tile_rows: int | None) -> Tensor:
        ctx.choices = (exclusive, reverse, method, tile_rows)
        if x.numel() == 0:
            return torch.zeros_like(x)
        rows = x.contiguous().view(-1, *x.shape[-2:])
        with torch.cuda.device_of(x):
            if method == "blocks":
                return _by_blocks(rows, exclusive, reverse, tile_rows).view(x.shape)
            return (_by_tree if method == "tree" else _by_sequence)(rows, exclusive, reverse).view(x.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        exclusive, reverse, method, tile_rows = ctx.choices
        return _CumulativeSum.apply(dy, exclusive, not reverse, method, tile_rows), None, None, None, None


@triton.jit
def _sequential_kernel(
    x_ptr, y_ptr, T, C, EXCLUSIVE: tl.constexpr, REVERSE: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A program has all rows of some columns; x and y `[R, T, C]`."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_x = tl.program_id(1).to(tl.int64) * T * C + o_c
    step = C
    if REVERSE:
        o_x += (T - 1) * C
        step = -C
    total = tl.zeros([BLOCK_C], x_ptr.dtype.element_ty)
    for _ in range(T):
        b_x = tl.load(x_ptr + o_x, o_c < C, other=0.0)
        if EXCLUSIVE:
            tl.store(y_ptr + o_x, total, o_c < C)
            total += b_x
        else:
            total += b_x
            tl.store(y_ptr + o_x, total, o_c < C)
        o_x += step


@triton.jit
def _load_tile(
    x_ptr, o_t, o_c, T, C, EXCLUSIVE: tl.constexpr, REVERSE: tl.constexpr
):  # fmt: skip
    """The rows that are added at the places `o_t`, counted from where the sum begins."""
    first = o_t - 1 if EXCLUSIVE else o_t
    mask = (first >= 0) & (o_t < T)
    o_rows = T - 1 - first if REVERSE else first
    return tl.load(x_ptr + o_rows[:, None] * C + o_c[None, :], mask[:, None] & (o_c < C)[None, :], other=0.0)


@triton.jit
def _tile_sums_kernel(
    x_ptr, sums_ptr, T, C, EXCLUSIVE: tl.constexpr, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A program has a tile; x `[R, T, C]`, sums `[R, T / BLOCK_T, C]`."""
    i_t, i_c, i_r = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_t, o_c = i_t * BLOCK_T + tl.arange(0, BLOCK_T), i_c * BLOCK_C + tl.arange(0, BLOCK_C)
    b_x = _load_tile(x_ptr + i_r * T * C, o_t, o_c, T, C, EXCLUSIVE, REVERSE)
    tl.store(sums_ptr + (i_r * tl.num_programs(0) + i_t) * C + o_c, tl.sum(b_x, axis=0), o_c < C)


@triton.jit
def _tiles_kernel(
    x_ptr, carried_ptr, y_ptr, T, C,
    EXCLUSIVE: tl.constexpr, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A program has a tile; x and y `[R, T, C]`, carried `[R, T / BLOCK_T, C]`."""
    i_t, i_c, i_r = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    o_t, o_c = i_t * BLOCK_T + tl.arange(0, BLOCK_T), i_c * BLOCK_C + tl.arange(0, BLOCK_C)
    b_x = _load_tile(x_ptr + i_r * T * C, o_t, o_c, T, C, EXCLUSIVE, REVERSE)
    carried = tl.load(carried_ptr + (i_r * tl.num_programs(0) + i_t) * C + o_c, o_c < C, other=0.0)
    b_y = carried[None, :] + tl.cumsum(b_x, axis=0)
    o_rows = T - 1 - o_t if REVERSE else o_t
    mask = (o_t < T)[:, None] & (o_c < C)[None, :]
    tl.store(y_ptr + i_r * T * C + o_rows[:, None] * C + o_c[None, :], b_y, mask)


@triton.jit
def _sweep_kernel(tree_ptr, distance, N, C, UP: tl.constexpr, BLOCK: tl.constexpr):
    """A program has some pairs of nodes of the tree `[R, N, C]`, whose last leaves lie `distance` apart."""
    i_r = tl.program_id(1).to(tl.int64)
    o_pairs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = o_pairs < N // (2 * distance) * C
    o_left = i_r * N * C + (o_pairs // C * 2 * distance + distance - 1) * C + o_pairs % C
    left_ptr, right_ptr = tree_ptr + o_left, tree_ptr + o_left + distance * C
    left, right = tl.load(left_ptr, mask, other=0.0), tl.load(right_ptr, mask, other=0.0)
    tl.store(right_ptr, left + right, mask)
    if not UP:
        tl.store(left_ptr, right, mask)


def _by_sequence(x: Tensor, exclusive: bool, reverse: bool) -> Tensor:
    R, T, C = x.shape
    y = torch.empty_like(x)
    block = min(_COLUMNS, triton.next_power_of_2(C))
    _sequential_kernel[(triton.cdiv(C, block), R)](x, y, T, C, exclusive, reverse, block, num_warps=1)
    return y


def _by_blocks(x: Tensor, exclusive: bool, reverse: bool, tile_rows: int | None) -> Tensor:
    R, T, C = x.shape
    block_c = min(_COLUMNS, triton.next_power_of_2(C))
    block_t = tile_rows or min(_TILE // block_c, triton.next_power_of_2(T))
    grid = (triton.cdiv(T, block_t), triton.cdiv(C, block_c), R)
    choices = (T, C, exclusive, reverse, block_t, block_c)
    sums, y = x.new_empty(R, grid[0], C), torch.empty_like(x)
    _tile_sums_kernel[grid](x, sums, *choices)
    _tiles_kernel[grid](x, _by_sequence(sums, True, False), y, *choices)
    return y


def _by_tree(x: Tensor, exclusive: bool, reverse: bool) -> Tensor:
    R, T, C = x.shape
    N = triton.next_power_of_2(T)
    tree = x.new_zeros(R, N, C)
    tree[:, :T] = x.flip(1) if reverse else x
    distances = [1 << level for level in range(N.bit_length() - 1)]
    for distance in distances:
        _sweep(tree, distance, up=True)
    tree[:, -1] = 0
    for distance in reversed(distances):
        _sweep(tree, distance, up=False)
    sums = tree[:, :T].flip(1) if reverse else tree[:, :T]
    return sums.contiguous() if exclusive else sums + x


def _sweep(tree: Tensor, distance: int, up: bool) -> None:
    R, N, C = tree.shape
    n_programs = triton.cdiv(N // (2 * distance) * C, _PAIRS)
    _sweep_kernel[(n_programs, R)](tree, distance, N, C, up, _PAIRS)
