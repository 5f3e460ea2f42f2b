"""Embeddings of runs of tokens: which rows are read, and what is added."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.exact import reference
from llmzip.exact.backend import load_backend
from llmzip.exact.matrix import QuantisedMatrix
from llmzip.exact.spec import ModelSpec, Ngrams
from llmzip.exact.transformer import Parameters, Segment, Transformer

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

BACKENDS = ["reference", "cpu"]
TOKENS = np.array([60, 7, 7, 82, 0, 7, 82, 0, 33, 1, 1, 64, 7, 7], np.int32)


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"tables-{n}")
def spec(request: pytest.FixtureRequest, sizes: dict[str, Any]) -> ModelSpec:
    """Plain attention and so many tables."""
    return ModelSpec(**(sizes | {"family": "made", "ngrams": Ngrams(request.param, 1024)}))


def _hidden(spec: ModelSpec, parameters: Parameters, backend: str, tokens: Tokens = TOKENS) -> Floats:
    model = Transformer(spec, parameters, load_backend(backend))
    return model.hidden(model.new_cache(1, 64), [Segment(0, 0, tokens)])


def _equal(found: Floats, expected: Floats) -> bool:
    return np.array_equal(found.view(np.int32), expected.view(np.int32))


@given(
    n=st.integers(2, 4),
    bits=st.integers(1, 23),
    tokens=st.lists(st.integers(0, 2**24 - 1), min_size=4, max_size=4),
)
def test_rows_of_runs_are_the_highest_bits_of_a_hash(
    n: int, bits: int, tokens: list[int], masked_forward: ModuleType
) -> None:
    """In integers of Python, up to the greatest token ids and tables."""
    runs = np.array([tokens[:n], [0] * n, [2**24 - 1] * n], np.int64)
    expected = [masked_forward.run_row([int(token) for token in run], 2**bits) for run in runs]
    assert reference.run_hashes(runs, 2**bits).tolist() == expected
    assert max(expected) < 2**bits


def test_rows_of_runs_by_hand() -> None:
    """The last token stands first; products and their mixture are words of 32 bits, whose highest bits count."""
    assert (300 * 2654435761 % 2**32, 5 * 2246822507 % 2**32) == (1761778540, 2644177943)
    assert (1761778540 ^ 2644177943) * 2654435761 % 2**32 == 126039819 == 0x0783370B
    assert reference.run_hashes(np.array([[300, 5]], np.int64), 4096).tolist() == [0x078]
    assert reference.run_hashes(np.array([[300, 5]], np.int64), 256).tolist() == [0x07]
    # Of tokens 1 the four multipliers: times the first, these begin with ff, 91, 27 and b6.
    ones = np.eye(4, dtype=np.int64)
    assert reference.run_hashes(ones, 256).tolist() == [0xFF, 0x91, 0x27, 0xB6]
    assert reference.run_hashes(ones, 2).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_with_tables_are_those_without_a_cache(
    backend: str, spec: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """In a prefill and by steps, in a lane that held another window before."""
    parameters = make_parameters(spec)
    expected, _ = masked_forward.masked_hidden(spec, parameters, TOKENS)
    assert _equal(_hidden(spec, parameters, backend), expected)
    model = Transformer(spec, parameters, load_backend(backend))
    cache = model.new_cache(2, 64)
    model.hidden(cache, [Segment(1, 0, TOKENS[::-1].copy())])
    steps = [model.hidden(cache, [Segment(1, i, TOKENS[i : i + 1])]) for i in range(len(TOKENS))]
    assert _equal(np.concatenate(steps), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_are_added_to_the_row_of_the_token_with_one_rounding(
    backend: str, spec: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """Tables fill channels of their own, side by side; layers that add zeros let the sum through."""
    parameters = make_parameters(spec)
    for layer in range(spec.n_layers):
        for name in ("o", "down"):
            parameters.matrices[f"layers.{layer}.{name}"].q[:] = 0
    assert spec.ngrams is not None
    channels = spec.width // spec.ngrams.tables
    x = np.zeros((len(TOKENS), spec.width), np.float32)
    for p in range(len(TOKENS)):
        for c in range(spec.width):
            i, column = divmod(c, channels)
            row = masked_forward.run_row(masked_forward.run_at(spec, TOKENS, p, i + 2), spec.ngrams.rows)
            own = _number(parameters.matrices["embed"], int(TOKENS[p]), c)
            x[p, c] = _nearest(own + _number(parameters.matrices[f"ngram{i + 2}"], row, column))
    expected = reference.rms_norm(x, parameters.vectors["final_norm"], spec.norm_eps)
    assert _equal(_hidden(spec, parameters, backend), expected)


def _number(matrix: QuantisedMatrix, row: int, column: int) -> Fraction:
    return Fraction(float(np.float32(matrix.q[row, column]) * matrix.scale[row]))


def _nearest(value: Fraction) -> np.float32:
    """The nearest float32; the sum of two of them is exact in float64 here, so that one rounding is left."""
    wide = float(value)
    assert Fraction(wide) == value
    return np.float32(wide)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_rows_of_the_runs_are_read(
    backend: str, spec: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """Other rows may hold anything; a row that a run has changes the result from its first run on."""
    parameters, expected = make_parameters(spec), _hidden(spec, make_parameters(spec), backend)
    assert spec.ngrams is not None
    for n in range(2, spec.ngrams.tables + 2):
        rows = [
            masked_forward.run_row(masked_forward.run_at(spec, TOKENS, p, n), spec.ngrams.rows)
            for p in range(len(TOKENS))
        ]
        table = parameters.matrices[f"ngram{n}"].q
        others = np.setdiff1d(np.arange(spec.ngrams.rows), rows)
        table[others] = -table[others]
        assert _equal(_hidden(spec, parameters, backend), expected)
        first = 4
        assert rows[first] not in rows[:first]
        table[rows[first]] = -table[rows[first]]
        found = _hidden(spec, parameters, backend)
        assert _equal(found[:first], expected[:first])
        assert not _equal(found[first : first + 1], expected[first : first + 1])
        table[rows[first]] = -table[rows[first]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_before_the_window_stands_the_token_that_begins_texts(
    backend: str, spec: ModelSpec, make_parameters: Any
) -> None:
    """A model with another such token differs in its first rows, and only there if the runs alone tell them."""
    parameters = make_parameters(spec)
    for layer in range(spec.n_layers):
        parameters.matrices[f"layers.{layer}.o"].q[:] = 0  # no row tells another
    assert spec.ngrams is not None
    found = _hidden(dataclasses.replace(spec, bos_id=50), parameters, backend)
    expected = _hidden(spec, parameters, backend)
    same = [_equal(found[p : p + 1], expected[p : p + 1]) for p in range(len(TOKENS))]
    assert same == [p >= spec.ngrams.tables for p in range(len(TOKENS))]
