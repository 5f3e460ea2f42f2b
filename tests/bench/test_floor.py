from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.floor import Floor
from llmzip.exact.cpu import CpuBackend
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix
from llmzip.exact.spec import ModelSpec, Selection
from llmzip.windows import Windowing

SPEC = ModelSpec("llama", 64, 16, 2, 4, 2, 8, 24, 512, 0, rotary_width=8)


class _Counter:
    """A backend that counts multiplications instead of doing them."""

    def __init__(self) -> None:
        self.n_weights = 0
        self.n_attention = 0

    def load(self, matrix: QuantisedMatrix) -> tuple[int, ...]:
        return matrix.q.shape

    def quantise_rows(self, x: NDArray[np.float32], limit: int) -> int:
        assert limit == ONE_LIMB
        return len(x)

    def linear(self, n_rows: int, shape: tuple[int, int]) -> None:
        if SPEC.head_width in shape:
            self.n_attention += n_rows * shape[0] * shape[1]
        else:
            self.n_weights += n_rows * shape[0] * shape[1]


def test_floor_multiplies_each_input_with_each_matrix_once() -> None:
    """Layers see every input of a window, the output matrix the coded tokens only."""
    backend = _run(Windowing(64, 16), n_tokens=100)
    n_inputs, n_coded = 64 + 52, 100
    assert backend.n_weights == n_inputs * 2 * (16 * 24) + n_coded * 64 * 16


def test_floor_attention_is_near_that_of_all_pairs() -> None:
    """Over a long window, two products of every query with all positions before it, within five percent."""
    n = 504
    pairs = SPEC.n_layers * SPEC.n_heads * n * (n + 1) // 2
    assert abs(_run(Windowing(n, 0), n_tokens=n).n_attention / (2 * pairs * SPEC.head_width) - 1) < 0.05


@pytest.mark.parametrize(("budgets", "share"), [((0, 0), 1.0), ((8, 8), 0.0315), ((8, 0), 0.516)])
def test_floor_attention_stays_within_the_budgets(budgets: tuple[int, int], share: float) -> None:
    """Of each layer; 8 of a window's 252 mean positions are a thirty-second."""
    n = 504
    spec = replace(SPEC, selection=Selection(1024, budgets))
    found = _run(Windowing(n, 0), n, spec).n_attention / _run(Windowing(n, 0), n).n_attention
    assert abs(found - share) < 0.001


def _run(windowing: Windowing, n_tokens: int, spec: ModelSpec = SPEC) -> _Counter:
    backend = _Counter()
    matrices = {
        "embed": _matrix(64, 16),
        "layers.0.up": _matrix(24, 16),
        "layers.1.up": _matrix(24, 16),
    }
    artefact = SimpleNamespace(spec=spec, parameters=SimpleNamespace(matrices=matrices))
    codec = SimpleNamespace(backend=backend, artefact=artefact, windowing=windowing, sizes=CpuBackend.sizes)
    with ThreadPoolExecutor(1) as pool:
        Floor(cast("Any", codec)).run([np.zeros(n_tokens, np.int32)], pool)
    return backend


def _matrix(n_columns: int, n_terms: int) -> QuantisedMatrix:
    return QuantisedMatrix(np.ones((n_columns, n_terms), np.int8), np.ones(n_columns, np.float32), None, ONE_LIMB)
