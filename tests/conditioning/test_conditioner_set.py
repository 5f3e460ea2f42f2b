from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.conditioning.conditioner_set import Basis, Choice, ConditionerSet, Text, conditioner_id
from llmzip.conditioning.description import describe, lines_of
from llmzip.conditioning.hyperpriors import Kind, quantise
from llmzip.conditioning.normal import step_of
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import ConditionerMissingError, FormatError
from llmzip.exact.spec import ModelSpec

SPEC = ModelSpec(
    "none", 50, width=8, n_layers=2, n_heads=1, n_kv_heads=1, head_width=8, ff_width=8, max_positions=64, bos_id=0
)
Floats = NDArray[np.float32]


def _vectors(n_prefix: int, *, shifted: bool, kind: Kind = "gaussian", n: int = 1, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    shape = Shape(n_prefix, 3 * shifted, 8)
    groups = [rng.normal(size=n * rows * 8).astype(np.float32) for rows in shape.groups]
    return Vectors(shape, tuple(quantise(group, kind, n_levels=15) for group in groups))


def _basis(*, own: bool, n_entries: int = 2, n_prefix: int = 0) -> Basis:
    vectors = _vectors(n_prefix, shifted=True, n=3)
    entries = np.random.default_rng(1).integers(-4, 5, (n_entries, 3))
    return Basis(vectors, np.array([60, 70, 80]), 4, entries, own)


def _rows(found: ConditionerSet) -> list[list[list[float]]]:
    return [
        [rows.tolist() for rows in (one.text, one.prefix, one.shifts) if rows is not None]
        for one in found.conditioners()
    ]


texts = st.lists(st.integers(0, 49), max_size=6).map(lambda ids: Text(np.array(ids, dtype=np.int32)))
vectors = st.builds(
    lambda n, shifted, kind, seed: _vectors(n, shifted=shifted, kind=kind, seed=seed),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["gaussian", "empirical", "lloyd-max"]),
    st.integers(0, 9),
)


@given(st.lists(st.one_of(texts, vectors), min_size=1, max_size=4))
def test_entries_come_back(entries: list[Text | Vectors]) -> None:
    """Strings and vectors of any shape, under any hyperprior."""
    found = ConditionerSet(tuple(entries))
    body = found.pack(SPEC)
    again = ConditionerSet.unpack(body, SPEC)
    assert again.pack(SPEC) == body
    assert _rows(again) == _rows(found)
    assert (again.n_entries, again.n_choices) == (len(entries), 1 + len(entries))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("n_prefix", [0, 2])
def test_a_basis_comes_back(own: bool, n_prefix: int) -> None:
    """With its entries; chunks bring their own weights only where there is no prefix."""
    found = ConditionerSet(basis=_basis(own=own and not n_prefix, n_prefix=n_prefix))
    again = ConditionerSet.unpack(found.pack(SPEC), SPEC)
    assert _rows(again) == _rows(found)
    assert again.has_own == (own and not n_prefix)
    assert again.n_choices == 3 + again.has_own


def test_a_combination_is_the_rounded_sum() -> None:
    """Of integers, rounded once, times the step, rounded once more."""
    basis = _basis(own=True)
    weights = [3, -2, 1]
    found = basis.vectors.conditioner(np.array(weights)).shifts
    assert found is not None
    for row, group in zip(found, basis.vectors.groups, strict=True):
        levels = group.integers().reshape(3, 8).tolist()
        sums = [sum(w * levels[a][i] for a, w in enumerate(weights)) for i in range(8)]
        step = step_of(group.step_code)
        assert row.tolist() == [np.float32(one) * step for one in sums]


@given(st.integers(0, 3), st.lists(st.integers(-4, 4), min_size=3, max_size=3))
def test_choices_come_back(number: int, weights: list[int]) -> None:
    """None, an entry, or weights."""
    found = ConditionerSet(basis=_basis(own=True))
    choice = Choice(number, tuple(weights) if number == 3 else ())
    encoder = ParameterEncoder()
    found.write_choice(encoder, choice)
    assert found.read_choice(ParameterDecoder(encoder.finish())) == choice


@given(st.binary(max_size=200).map(lambda data: data[: len(data) // 4 * 4]))
def test_any_bytes_are_a_set_or_refused(data: bytes) -> None:
    """What is read is written the same."""
    try:
        found = ConditionerSet.unpack(data, SPEC)
    except (FormatError, ConditionerMissingError):
        return
    assert found.pack(SPEC) == data


def _stream(*numbers: tuple[str, int, int]) -> bytes:
    encoder = ParameterEncoder()
    for kind, value, n in numbers:
        if kind == "uniform":
            encoder.uniform(value, n)
        else:
            encoder.gamma(value)
    return encoder.finish()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([("uniform", 0, 2), ("gamma", 512, 0)], "at most 255 entries, found 512"),
        ([("uniform", 1, 2), ("gamma", 256, 0)], "at most 255 entries, found 256"),
        ([("uniform", 0, 2), ("gamma", 0, 0)], "a conditioner, found none"),
        ([("uniform", 0, 2), ("gamma", 1, 0), ("uniform", 0, 2), ("gamma", 257, 0)], "at most 256 tokens, found 257"),
        ([("uniform", 0, 2), ("gamma", 1, 0), ("uniform", 1, 2), ("gamma", 257, 0)], "at most 256 rows, found 257"),
        ([("uniform", 1, 2), ("gamma", 1, 0), ("gamma", 64, 0)], "at most 64 directions, found 65"),
    ],
)
def test_what_is_above_a_limit_is_refused(numbers: list[tuple[str, int, int]], words: str) -> None:
    """By name, limit and value."""
    with pytest.raises(FormatError, match=f"conditioner: .*{words}|prefix: expected {words}|expected {words}"):
        ConditionerSet.unpack(_stream(*numbers), SPEC)


def test_bytes_behind_a_set_are_refused() -> None:
    """A word more, and one less."""
    body = ConditionerSet((_vectors(1, shifted=True),)).pack(SPEC)
    with pytest.raises(FormatError, match="nothing behind the last conditioner"):
        ConditionerSet.unpack(body + bytes(4), SPEC)
    with pytest.raises(FormatError):
        ConditionerSet.unpack(body[:-4], SPEC)


def test_the_id_names_model_and_set() -> None:
    """Either changes it."""
    ids = {conditioner_id(model * 32, body) for model in ("ab", "cd") for body in (b"1", b"2")}
    assert len(ids) == 4
    assert {len(one) for one in ids} == {32}


def test_parts_are_described_with_their_bits() -> None:
    """Of entries and of a basis, which together are the set but for what says how many there are."""
    entries = ConditionerSet((Text(np.array([1, 2], dtype=np.int32)), _vectors(2, shifted=True)))
    facts = describe(entries)
    assert facts["entries"][0] == {"kind": "string", "tokens": 2}
    parts = facts["entries"][1]["parts"]
    assert [part["part"] for part in parts] == ["prefix of 2", "shift 0", "shift 1", "shift 2"]
    bits = sum(part["metadata_bits"] + part["coordinate_bits"] for part in parts)
    assert bits < 8 * len(entries.pack(SPEC)) < bits + 100
    assert lines_of(facts)[:3][0] == "entry 1: string of 2 tokens"
    basis = describe(ConditionerSet(basis=_basis(own=True)))
    assert (basis["directions"], basis["entries"], basis["chunks_bring_weights"]) == (3, 2, True)
    assert "weights: -4 to 4" in lines_of(basis)
