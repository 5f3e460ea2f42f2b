# ruff: noqa: TID253
"""What `bench.kernels` measures of the exact engine: each of its kernels at sizes of SmolLM2-135M, beside PyTorch.

Before it is timed, a kernel's result is compared with that of `llmzip.exact.reference`, in some rows, with `==`.
Imports torch and Triton, so it is loaded lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.kernels_timing import Pass, Step, Way, Work, compiled_by_torch, repeated
from llmzip.errors import ExactnessError
from llmzip.exact.matrix import ONE_LIMB, Rows
from llmzip_kernels.quantise import LimbRows

Array = NDArray[Any]
# Rows that the reference computes: it takes long.
_CHECKED_ROWS = 12
# Of a way in one CUDA graph.
RUNS = 10
FORWARD = "forward"


@dataclass(frozen=True)
class ExactCase:
    """One operation of the exact engine at one size.

    Attributes:
        name: the operation and its sizes.
        opponent: what `eager` and `others` compute.
        kernel: runs the kernels, on what lies on the device.
        view: the tensors of the kernels' result, rows first, that `expected` has some rows of.
        rows: which.
        expected: what the reference makes of those rows.
        eager: the same as the view of the kernels' result, by PyTorch's own operations.
        inputs: of `eager`.
        n_bytes: what must be moved at least.
        n_operations: of int8, what must be multiplied and added at least.
        compiles: whether `eager` is measured compiled, too.
        others: something else of a like cost, only timed.
        runs: of a way in one step.
    """

    name: str
    opponent: str
    kernel: Callable[[], Any]
    view: Callable[[Any], Sequence[Tensor]]
    rows: slice
    expected: Callable[[], Sequence[Array]]
    eager: Way
    inputs: tuple[Any, ...]
    n_bytes: int
    n_operations: int = 0
    compiles: bool = True
    others: Mapping[str, Step] = field(default_factory=dict)
    runs: int = RUNS

    def check(self) -> str:
        """Compare the kernels' result with the reference's, bit for bit.

        Raises:
            ExactnessError: an element differs.
        """
        expected = self.expected()
        found = [x[self.rows].cpu().numpy() for x in self.view(self.kernel())]
        for i, (own, other) in enumerate(zip(found, expected, strict=True)):
            if not np.array_equal(own, other):
                n_off = int((own != other).sum()) if own.shape == other.shape else own.size
                raise ExactnessError(
                    f"{self.name}: kernel: expected the reference's numbers, found {n_off} others of {own.size} "
                    f"in part {i + 1} of {len(expected)}"
                )
        return f"equal to the reference in {len(expected[0])} rows"

    def passes(self, *, compiled: bool) -> Iterator[Pass]:
        """One, in CUDA graphs of some runs."""
        ways: dict[str, Step] = {"kernel": self.kernel, "eager": partial(self.eager, *self.inputs)}
        if compiled and self.compiles:
            ways["compiled"] = partial(compiled_by_torch(self.eager), *self.inputs)
        steps = {name: repeated(way, self.runs) for name, way in (ways | dict(self.others)).items()}
        yield Pass(FORWARD, steps, Work(self.n_bytes, self.n_operations, torch.int8), self.runs)


def some_rows(n_rows: int) -> slice:
    """A few rows from first to last, or all where there are few."""
    return slice(0, n_rows, max(1, n_rows // _CHECKED_ROWS))


def floats(device: str, *shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def integers(device: str, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    """Whole numbers from `low` up to, not including, `high`."""
    generator = torch.Generator(device).manual_seed(1)
    return torch.randint(low, high, shape, generator=generator, device=device, dtype=dtype)


def bytes_of(*tensors: Tensor | None) -> int:
    """Memory of what is moved."""
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors if tensor is not None)


def host(tensor: Tensor) -> Array:
    """A copy for the reference."""
    array: Array = tensor.cpu().numpy()
    return array


def limbs_first(rows: LimbRows, width: int) -> tuple[Tensor, Tensor]:
    """Quantised rows with the row as first dimension `[R, limbs, D]`, and scales."""
    return rows.q[:, :, :width].movedim(1, 0), rows.scale


def limbs_of(rows: Rows) -> tuple[Array, Array]:
    """The same of the reference's rows."""
    if rows.limit <= ONE_LIMB:
        return rows.q.astype(np.int8)[:, None], rows.scale
    high = (rows.q.astype(np.int32) + 64) >> 7
    return np.stack([high, rows.q - 128 * high], axis=1).astype(np.int8), rows.scale


def in_words(limit: int) -> str:
    """How many limbs rows have that are quantised to this limit."""
    return "one limb" if limit <= ONE_LIMB else "two limbs"
