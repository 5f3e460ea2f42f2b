"""The loops of `llmzip.exact.products`, for every kind of instruction that this machine has."""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact import products

ROWS = 7
SENTINEL = -0x5A5A5A5A


def _kinds() -> list[str]:
    features = llvmlite.binding.get_host_cpu_features()
    kinds = ["generic"]
    if features.get("avx2"):
        kinds.append("avx2")
    if features.get("avx512bw") and features.get("avx512vl"):
        kinds.append("avx512")
    return kinds


@pytest.fixture(params=_kinds(), scope="module")
def tiles(request: pytest.FixtureRequest) -> dict[int, Any]:
    """Compiled tiles of one and of six rows, built from one kind of instruction, never cached on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "host_instructions", lambda: request.param)
        made = {rows: _compile(products.product_tile(rows), products.scaled_tile(rows)) for rows in (1, 6)}
        for run in made.values():
            run(*_operands(ROWS, 2))
        return made


def _compile(tile: Any, scaled: Any) -> Any:
    import numba

    def run(a: Any, b: Any, s: Any, t: Any, c: Any, y: Any) -> None:
        n_pairs, stride = a.shape[1] // 2, c.shape[1]
        tile(a.ctypes.data, n_pairs, b.ctypes.data, n_pairs, c.ctypes.data, stride)
        scaled(a.ctypes.data, n_pairs, b.ctypes.data, n_pairs, y.ctypes.data, stride, s.ctypes.data, t.ctypes.data)

    return numba.njit(run)


def _operands(n_rows: int, n_terms: int, extreme: int = 0) -> tuple[NDArray[Any], ...]:
    """Activations, packed weights, scales of rows and columns, and poisoned results with a column to spare."""
    rng = np.random.default_rng((n_rows, n_terms))
    a = rng.integers(-8191, 8192, (n_rows, n_terms)).astype(np.int16)
    b = rng.integers(-127, 128, (n_terms // 2, 16, 2)).astype(np.int8)
    if extreme:
        a[:], b[:] = np.where(a < 0, -8191, 8191), 127
        a[0], a[-1], b[:, 3] = 8191, -8191, -127
    s, t = rng.normal(size=n_rows).astype(np.float32), rng.normal(size=16).astype(np.float32)
    c = np.full((n_rows, 17), SENTINEL, np.int32)
    return a, b, s, t, c, c.view(np.float32).copy()


@pytest.mark.parametrize("n_rows", [1, 6])
@pytest.mark.parametrize("n_terms", [2, 4, 14, 64, 66, 2048])
@pytest.mark.parametrize("extreme", [0, 1], ids=["random", "extreme"])
def test_sums_are_those_of_python(tiles: dict[int, Any], n_rows: int, n_terms: int, extreme: int) -> None:
    """Exact up to +-8191 times +-127 over 2048 terms, and nothing is written beside the sixteen columns."""
    a, b, s, t, c, y = _operands(ROWS, n_terms, extreme)
    tiles[n_rows](a, b, s, t, c, y)
    expected = a[:n_rows].astype(np.int64) @ b.transpose(0, 2, 1).reshape(n_terms, 16).astype(np.int64)
    assert np.array_equal(c[:n_rows, :16], expected)
    scaled = (expected.astype(np.float32) * s[:n_rows, None]) * t[None, :]
    assert np.array_equal(y[:n_rows, :16].view(np.int32), scaled.view(np.int32))
    for result in (c, y.view(np.int32)):
        assert (result[n_rows:] == SENTINEL).all()
        assert (result[:, 16] == SENTINEL).all()


def test_the_host_has_one_of_the_kinds() -> None:
    """What the backend uses here is among those tested."""
    assert products.host_instructions() in _kinds()
