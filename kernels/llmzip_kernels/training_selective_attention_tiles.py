# ruff: noqa: TID253
"""What the kernels of selective attention for training have in common: tiles of S and F, and how they are launched.

Queries and keys go by tiles of `BLOCK`. F of a tile is what all earlier tiles of queries selected, the carried sums,
plus a cumulative sum within the tile, which is computed anew wherever it is needed. The queries of the selecting head
are read one position earlier than the others, `o_q - 1`: then F is an inclusive sum and nothing is taken off again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Bytes of a row of a head from which on a tile has 32 rows and not 64, so that all tiles of a program fit on chip.
WIDE_ROW = 256
MAX_ROW_BYTES = 512
MAX_WIDTH = 128


class Selection(NamedTuple):
    """What is selected, and how.

    Attributes:
        scale: what q.k is multiplied by.
        protect_first: nothing is forgotten at position 0 of the window.
        mask_self: a query's own key takes part in its selection too.
        enabled: False is F = 0, and so plain attention.
        limit: from which F on a token counts as forgotten.
    """

    scale: float
    protect_first: bool = True
    mask_self: bool = False
    enabled: bool = True
    limit: float = 1.0


def sum_dtype(x: Tensor) -> torch.dtype:
    """The type of sums over values of the type of `x`."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def fits(x: Tensor) -> bool:
    """Whether heads like `x` `[..., K]` are narrow enough for the tiles of a program to fit on chip."""
    width = triton.next_power_of_2(x.shape[-1])
    return bool(width <= MAX_WIDTH and width * x.element_size() <= MAX_ROW_BYTES)


def block_size(x: Tensor) -> int:
    """Rows of a tile of heads like `x` `[..., K]`."""
    return 32 if triton.next_power_of_2(x.shape[-1]) * x.element_size() >= WIDE_ROW else 64


def constants(q: Tensor, selection: Selection, block: int) -> dict[str, Any]:
    """What all kernels are compiled for."""
    return {
        "scale": selection.scale,
        "PROTECT_FIRST": selection.protect_first,
        "MASK_SELF": selection.mask_self,
        "PRECISION": _precision(q.dtype),
        "BLOCK": block,
        "BLOCK_K": max(16, triton.next_power_of_2(q.shape[-1])),
        "num_stages": 2,
    }


def _precision(dtype: torch.dtype) -> str:
    """Of products of float32: its own by three tf32 products each, or tf32 where PyTorch's products have that too."""
    if dtype != torch.float32:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@triton.jit
def load_rows(x_ptr, stride, o_rows, T, o_k, K):
    """Rows of a head, `[BLOCK, BLOCK_K]`; zeros outside of it."""
    m_rows = (o_rows >= 0) & (o_rows < T)
    return tl.load(x_ptr + o_rows[:, None] * stride + o_k[None, :], m_rows[:, None] & (o_k < K)[None, :], other=0.0)


@triton.jit
def store_rows(x_ptr, b_x, o_rows, T, o_k, K):
    """The rows of a head that lie one after the other."""
    tl.store(x_ptr + o_rows[:, None] * K + o_k[None, :], b_x, (o_rows < T)[:, None] & (o_k < K)[None, :])


@triton.jit
def selection_tile(
    b_q, b_k, o_q, o_k,
    scale: tl.constexpr, PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """S of the selecting head's queries at `o_q` and keys at `o_k`, `[BLOCK, BLOCK]`."""
    scores = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale
    first = o_k if MASK_SELF else o_k + 1
    selectable = o_q[:, None] >= first[None, :]
    if PROTECT_FIRST:
        selectable &= (o_k > 0)[None, :]
    return tl.where(selectable, tl.maximum(scores, 0.0), 0.0)


@triton.jit
def score_gradients(
    b_q, b_k, b_v, b_dy, forgetting, lse, delta, o_q, o_k, scale: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """The weights of a tile of one head, and the gradient of Z - F."""
    scores = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale - forgetting
    weights = tl.where(o_q[:, None] >= o_k[None, :], tl.exp(scores - lse[:, None]), 0.0)
    d_weights = tl.dot(b_dy, tl.trans(b_v), input_precision=PRECISION)
    return weights, weights * (d_weights - delta[:, None])
