"""The normative functions against Python's integers and fractions, and against the real functions within bounds."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.exact import reference, tables
from llmzip.exact.matrix import ATTENTION_LIMIT, ONE_LIMB, TWO_LIMBS, QuantisedMatrix, Rows, quantise_matrix
from llmzip.exact.spec import Selection

Floats = NDArray[np.float32]

FLOATS = st.floats(-(2.0**40), 2.0**40, width=32)
CUTOFFS = st.integers(1, 2**19)


def _f32(value: Fraction) -> Fraction:
    """The nearest float32 of a number that is no subnormal, ties to even, by integer arithmetic alone."""
    if value == 0:
        return value
    exponent = 0
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    return round(value / unit) * unit


def _fraction(x: np.float32 | float) -> Fraction:
    return Fraction(float(x))


def _random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(st.lists(FLOATS, min_size=1, max_size=6), st.sampled_from([ONE_LIMB, TWO_LIMBS, 32767]))
def test_quantise_rows_is_the_equation(row: list[float], limit: int) -> None:
    """Equation (6) in fractions, and the bound of what is lost."""
    rows = reference.quantise_rows(np.array([row], dtype=np.float32), limit)
    greatest = max(abs(Fraction(x)) for x in row)
    if greatest < Fraction(2) ** -60:
        assert not rows.q.any()
        assert rows.scale[0] == 0
        return
    inverse, scale = _f32(limit / greatest), _f32(greatest / limit)
    assert rows.q[0].tolist() == [round(_f32(Fraction(x) * inverse)) if abs(x) > 1e-30 else 0 for x in row]
    assert _fraction(rows.scale[0]) == scale
    assert np.abs(rows.q).max() == limit
    bound = (Fraction(1, 2) + limit * Fraction(2) ** -22) * scale
    assert all(abs(Fraction(x) - int(q) * scale) <= bound for x, q in zip(row, rows.q[0], strict=True))


@pytest.mark.parametrize("limit", [ONE_LIMB, TWO_LIMBS])
def test_linear_is_the_equation(limit: int) -> None:
    """Equation (7): the whole integer, then three roundings."""
    matrix = QuantisedMatrix(*quantise_matrix(_random(4, 23, seed=1)), _random(4, seed=2), limit)
    rows = reference.quantise_rows(_random(3, 23), limit)
    y = reference.linear(rows, matrix)
    assert matrix.bias is not None
    for r in range(3):
        for n in range(4):
            acc = sum(int(a) * int(w) for a, w in zip(rows.q[r], matrix.q[n], strict=True))
            scaled = _f32(_f32(_f32(Fraction(acc)) * _fraction(rows.scale[r])) * _fraction(matrix.scale[n]))
            assert _fraction(y[r, n]) == _f32(scaled + _fraction(matrix.bias[n]))


def test_two_limbs_are_two_products_of_bytes() -> None:
    """128 * high + low with both in int8 gives the same integer."""
    a = np.arange(-TWO_LIMBS, TWO_LIMBS + 1)
    high = (a + 64) >> 7
    low = a - 128 * high
    assert np.array_equal(128 * high + low, a)
    assert max(abs(high).max(), abs(low).max()) <= 127


def test_rotation_is_the_equation() -> None:
    """Equation (10): each product rounded, then the sum; channels beyond stay."""
    x = _random(2, 1, 7)
    cos, sin = (table[3:5] for table in tables.rotary_tables(6, 1e4, None, 8))
    y = reference.rotate(x, cos, sin)
    for r in range(2):
        for i in range(3):
            a, b, c, s = (_fraction(v) for v in (x[r, 0, i], x[r, 0, i + 3], cos[r, i], sin[r, i]))
            assert _fraction(y[r, 0, i]) == _f32(_f32(a * c) - _f32(b * s))
            assert _fraction(y[r, 0, i + 3]) == _f32(_f32(b * c) + _f32(a * s))
        assert y[r, 0, 6] == x[r, 0, 6]


def test_exp_weights_are_exponentials() -> None:
    """Within 3.5e-4 of 2**24 * exp(-d), and one unit; zero and far distances are exact."""
    distance = np.linspace(0, 25, 50001, dtype=np.float32)
    exact = 2.0**24 * np.exp(-distance.astype(np.float64))
    assert (np.abs(reference.exp_weights(distance) - exact) <= 3.5e-4 * exact + 1).all()
    assert reference.exp_weights(np.array([0, 21.5, 1e30], np.float32)).tolist() == [1 << 24, 0, 0]
    assert (np.diff(reference.exp_weights(distance)) <= 0).all()


def test_activations_are_near_the_real_functions() -> None:
    """Within the bounds of ARITHMETIC.md, section 9."""
    x = np.linspace(-12, 12, 20001, dtype=np.float32)
    real = x.astype(np.float64)
    silu = real / (1 + np.exp(-real))
    tanh = 0.5 * real * (1 + np.tanh(math.sqrt(2 / math.pi) * (real + 0.044715 * real**3)))
    erf = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in real.tolist()])
    assert (np.abs(reference.silu(x) - silu) <= 9e-5 * np.abs(real)).all()
    assert (np.abs(reference.gelu_tanh(x) - tanh) <= 9e-5 * np.abs(real)).all()
    assert (np.abs(reference.gelu(x) - erf) <= 7e-7 + 2.0**-22 * np.abs(real)).all()


@given(st.lists(st.floats(-(2.0**30), 2.0**30, width=32).filter(lambda x: x == 0 or abs(x) > 1e-9), min_size=1))
def test_relu2_is_the_square_of_what_is_positive(row: list[float]) -> None:
    """One rounding, and zero for what is not positive, minus zero among it."""
    found = reference.relu2(np.array(row, np.float32))
    assert [_fraction(y) for y in found] == [_f32(Fraction(max(x, 0.0)) ** 2) for x in row]
    assert reference.ACTIVATIONS["relu2"] is reference.relu2


@pytest.mark.parametrize("width", [1, 3, 64, 257])
def test_norms_are_near_the_real_functions(width: int) -> None:
    """By a factor within 1 +- sqrt(D) / 65000, in units of the greatest element for the mean."""
    x, weight, bias = _random(5, width), _random(width, seed=1), _random(width, seed=2)
    real = x.astype(np.float64)
    expected = real / np.sqrt((real**2).mean(axis=1, keepdims=True) + 1e-5) * weight
    bound = math.sqrt(width) / 65000 + 1e-6
    assert (np.abs(reference.rms_norm(x, weight, 1e-5) - expected) <= bound * np.abs(expected)).all()
    centred = real - real.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * weight + bias
    if width > 1:
        assert np.abs(reference.layer_norm(x, weight, bias, 1e-5) - expected).max() < 1e-3


def test_attention_is_near_softmax() -> None:
    """Within what int8 queries, keys and values lose, for a local window too."""
    k, v, q = _random(30, 8, seed=1), _random(30, 8, seed=2), _random(2, 8, seed=3)
    keys, values = reference.quantise_rows(k, ONE_LIMB), reference.quantise_rows(v, ONE_LIMB)
    for position, window in [(0, 0), (29, 0), (20, 5), (3, 5)]:
        first = max(0, position + 1 - window) if window else 0
        scores = q @ k[first : position + 1].T * 0.35
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = weights / weights.sum(axis=1, keepdims=True) @ v[first : position + 1]
        found = reference.attention(q, keys, values, position, 0.35, window)
        assert np.abs(found - expected).max() < 0.03


def test_attention_over_one_key_is_its_value() -> None:
    """The weight of a single key is one, whatever the score: what comes out is the quantised value, nearly."""
    keys = Rows(np.array([[127, 3]], np.int16), np.array([1e3], np.float32), ONE_LIMB)
    values = Rows(np.array([[127, -50]], np.int16), np.array([0.5], np.float32), ONE_LIMB)
    found = reference.attention(_random(1, 2), keys, values, 0, 1.0, 0)
    assert np.abs(found - [63.5, -25]).max() < 1e-5
    assert ATTENTION_LIMIT * 127 * 2048 < 2**31


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(0, 2**19 - 1)), min_size=1, max_size=5))
def test_what_is_forgotten_is_taken_from_scores_with_one_rounding(row: list[tuple[float, int]]) -> None:
    """For all heads alike; the product with 2**-10 is exact."""
    scores, forgotten = zip(*row, strict=True)
    both = np.array([scores, scores[::-1]], np.float32)
    found = reference.forget(both, np.array(forgotten, np.int64))
    for head, y in zip(both.tolist(), found, strict=True):
        expected = [_f32(Fraction(x) - Fraction(f, 1024)) for x, f in zip(head, forgotten, strict=True)]
        assert [_fraction(value) for value in y] == expected


@given(
    cutoff=CUTOFFS,
    keys=st.lists(
        st.tuples(st.floats(-600, 600, width=32), st.integers(0, 2**19 - 1), st.integers(0, 2047)),
        min_size=1,
        max_size=6,
        unique_by=lambda key: key[2],
    ),
    protect_first=st.booleans(),
    mask_self=st.booleans(),
)
def test_select_is_the_equation(
    cutoff: int, keys: list[tuple[float, int, int]], protect_first: bool, mask_self: bool
) -> None:
    """In integers of Python; F never falls, and stops at the cutoff."""
    scores, forgotten, positions = zip(*((x, f % cutoff, p) for x, f, p in keys), strict=True)
    own = max(positions)
    expected = []
    for x, f, p in zip(scores, forgotten, positions, strict=True):
        spared = (protect_first and p == 0) or (not mask_self and p == own)
        selected = 0 if spared else round(min(Fraction(max(x, 0.0)) * 1024, Fraction(cutoff)))
        expected.append(min(f + selected, cutoff))
    arrays = (np.array(scores, np.float32), np.array(forgotten, np.int64), np.array(positions, np.int64))
    found = reference.select(*arrays, own, Selection(cutoff, (), protect_first, mask_self)).tolist()
    assert found == expected
    assert all(f <= after <= cutoff for f, after in zip(forgotten, found, strict=True))


def test_select_by_hand() -> None:
    """Ties to even, nothing for what is not positive, the cutoff for what is beyond it, and whom the rules spare."""
    unit = 1 / 1024
    scores = np.array([3, 0.5 * unit, 1.5 * unit, -2, 0, 1e30, 7 * unit, 1], np.float32)
    forgotten, positions = np.array([0, 9, 8, 7, 6, 5, 96, 0]), np.array([0, 1, 2, 3, 5, 8, 11, 12])
    for protect_first, mask_self, first, last in [(True, False, 0, 0), (False, True, 100, 100), (True, True, 0, 100)]:
        selection = Selection(100, (), protect_first, mask_self)
        found = reference.select(scores, forgotten, positions, 12, selection)
        assert found.tolist() == [first, 9, 10, 7, 6, 100, 100, last]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2047)), min_size=1, max_size=8, unique_by=lambda k: k[1]))
def test_least_needed_is_forgotten_most_and_the_latest_of_equals(keys: list[tuple[int, int]]) -> None:
    """In whatever order the keys stand."""
    forgotten, positions = (np.array(part, np.int64) for part in zip(*keys, strict=True))
    assert keys[reference.least_needed(forgotten, positions)] == max(keys)


@given(st.lists(st.integers(0, 2**36), min_size=1, max_size=12).filter(any))
def test_frequencies_are_shares_of_the_whole(weights: list[int]) -> None:
    """Equation (18) in Python's integers; what is left goes to the first of the greatest."""
    total = 2**24 - len(weights)
    shares = [w * total // sum(weights) for w in weights]
    shares[weights.index(max(weights))] += total - sum(shares)
    assert reference.frequencies(np.array([weights], dtype=np.int64))[0].tolist() == shares


def test_output_weights_are_at_least_one() -> None:
    """The most likely token has 2**24, one out of reach 1."""
    weights = reference.output_weights(np.array([[0, -1e9, 3, 3]], np.float32))
    assert weights[0, 1:].tolist() == [1, 1 << 24, 1 << 24]


def test_matrices_are_rounded_row_by_row() -> None:
    """A division an element; a row of almost nothing is zeros of scale one."""
    weight = _random(3, 40)
    weight[1] = np.float32(2.0**-61)
    q, scale = quantise_matrix(weight)
    assert (q[1].any(), float(scale[1])) == (False, 1.0)
    for n in (0, 2):
        unit = _f32(_fraction(np.abs(weight[n]).max()) / 127)
        assert _fraction(scale[n]) == unit
        assert q[n].tolist() == [round(_f32(_fraction(w) / unit)) for w in weight[n]]
