"""Products of one model's matrix shapes, three ways: ours, `torch._int_mm`, and float32 BLAS.

All three get the same operands, a block of rows for each core, and all cores. Ours and torch's integers
must agree before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from bench.timing import interleave
from llmzip.errors import ExactnessError
from llmzip.exact.backend import Backend
from llmzip.exact.cpu import CpuBackend
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix
from llmzip.exact.transformer import Parameters

# One product takes a few milliseconds, of which the first after a rest runs on cold caches.
_PRODUCTS_A_RUN = 10
# Of the output matrix these columns are enough to measure the speed.
_MAX_COLUMNS = 4096


class Shape(NamedTuple):
    """One kind of product: rows a core, terms of a sum, columns."""

    n_rows: int
    n_terms: int
    n_columns: int

    def __str__(self) -> str:
        return f"{self.n_rows} x {self.n_terms} x {self.n_columns}"


def shapes(parameters: Parameters) -> list[Shape]:
    """The different shapes of a model's products, smallest first; the output matrix is cut, look-up tables are none."""
    found = {matrix.q.shape for name, matrix in parameters.matrices.items() if not name.startswith("ngram")}
    cut = {Shape(CpuBackend.sizes.rows, n_terms, min(n_columns, _MAX_COLUMNS)) for n_columns, n_terms in found}
    return sorted(cut, key=lambda shape: (shape.n_terms * shape.n_columns, shape))


def seconds_of_shapes(
    backend: Backend, parameters: Parameters, pool: ThreadPoolExecutor, n_cores: int, repeats: int
) -> Iterator[tuple[Shape, float, dict[str, list[float]]]]:
    """For each shape the Gop (additions and multiplications) of a run, and the seconds of each way's runs."""
    for shape in shapes(parameters):
        ways = _ways(backend, shape, pool, n_cores)
        for way in ways.values():
            way()
        gop = 2e-9 * _PRODUCTS_A_RUN * n_cores * shape.n_rows * shape.n_terms * shape.n_columns
        yield shape, gop, interleave({name: _several(way) for name, way in ways.items()}, repeats)


def _several(way: Callable[[], object]) -> Callable[[], object]:
    return lambda: [way() for _ in range(_PRODUCTS_A_RUN)]


def _ways(backend: Backend, shape: Shape, pool: ThreadPoolExecutor, n_cores: int) -> dict[str, Callable[[], object]]:
    """The three ways to the same product.

    Raises:
        ExactnessError: ours and torch's integers differ.
    """
    import torch

    torch.set_num_threads(n_cores)
    random = np.random.default_rng(0)
    a = random.integers(-ONE_LIMB, ONE_LIMB + 1, (n_cores * shape.n_rows, shape.n_terms), dtype=np.int8)
    a[:, 0] = ONE_LIMB  # so that quantising a row to this limit gives back its integers
    b = random.integers(-ONE_LIMB, ONE_LIMB + 1, (shape.n_columns, shape.n_terms), dtype=np.int8)
    matrix = backend.load(QuantisedMatrix(b, np.ones(len(b), np.float32), None, ONE_LIMB))
    blocks = [backend.quantise_rows(block.astype(np.float32), ONE_LIMB) for block in np.split(a, n_cores)]
    torch_a, torch_b = torch.from_numpy(a), torch.from_numpy(b).t()
    float_a, float_b = torch_a.float(), torch_b.float()

    def ours() -> list[object]:
        return list(pool.map(lambda rows: backend.linear(rows, matrix), blocks))

    found = np.concatenate([backend.linear(rows, matrix) for rows in blocks])
    if not np.array_equal(found, torch._int_mm(torch_a, torch_b).numpy().astype(np.float32)):
        raise ExactnessError(f"products {shape}: expected torch's integers, found others")
    return {
        "llmzip": ours,
        "torch._int_mm": lambda: torch._int_mm(torch_a, torch_b),
        "float32 BLAS": lambda: float_a @ float_b,
    }
