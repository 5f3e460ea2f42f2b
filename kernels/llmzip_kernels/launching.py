# ruff: noqa: TID253
"""How exact kernels are launched, and on which device their tensors lie."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# No fused multiply-add: ARITHMETIC.md, law 2.
EXACT: dict[str, Any] = {"enable_fp_fusion": False}
# Terms of products and positions of caches come in blocks of so many; what is beyond the real ones is zero.
DEPTH = 64
# Elements of rows that one program takes, where rows are short. The interpreter's costs are those of programs.
_TILE, _INTERPRETED_TILE = 1 << 9, 1 << 14


def is_interpreted() -> bool:
    """Whether kernels run as NumPy on the CPU; decided by the environment before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device() -> torch.device:
    """Where the tensors of kernels lie."""
    return torch.device("cpu" if is_interpreted() else "cuda")


def to_device(array: NDArray[Any] | torch.Tensor) -> torch.Tensor:
    """The elements, row after row, on the device; a copy if they come from the host."""
    if isinstance(array, torch.Tensor):
        return array.contiguous()
    return torch.from_numpy(np.array(array, order="C")).to(device())


def power_of_two(n: int) -> int:
    """The least power of two from `n` on."""
    return 1 << max(0, n - 1).bit_length()


def round_up(n: int, multiple: int) -> int:
    """The least multiple from `n` on."""
    return -(-n // multiple) * multiple


def tiling(n_rows: int, block: int) -> dict[str, int]:
    """How a row operation is launched, a row padded to `block` elements; its grid is that of `grid`."""
    elements = _INTERPRETED_TILE if is_interpreted() else _TILE
    rows = max(1, min(power_of_two(n_rows), elements // block))
    return {"ROWS": rows, "BLOCK": block, "num_warps": max(1, min(8, rows * block // 256))}


def grid(n_rows: int, tiles: dict[str, int]) -> tuple[int]:
    """Programs of a row operation."""
    return (-(-n_rows // tiles["ROWS"]),)
