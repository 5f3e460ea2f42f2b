"""Every operation of the CPU backend against the reference, bit for bit, where implementations go wrong."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.exact import reference, tables
from llmzip.exact.backend import load_backend
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix, quantise_matrix
from llmzip.exact.reference_backend import ReferenceBackend
from llmzip.exact.spec import ModelSpec, Selection
from llmzip.exact.transformer import Segment, Transformer

Floats = NDArray[np.float32]

CPU, REFERENCE = load_backend("cpu"), ReferenceBackend()
WIDTHS = [1, 2, 7, 16, 17, 31, 64, 65]
SHAPES = [(1, 1, 1), (1, 16, 16), (2, 17, 5), (3, 2, 33), (5, 64, 15), (6, 31, 16), (7, 65, 17), (13, 8, 48)]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what the backend's `np.empty` gives with NaNs or extremes, so that an element that nobody writes shows.

    Only there: numba must find the real one when it compiles.
    """

    def filled(*args: Any, **kwargs: Any) -> NDArray[Any]:
        array = np.empty(*args, **kwargs)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
        return array

    poisoned = types.SimpleNamespace(**vars(np))
    poisoned.empty = filled
    poisoned.empty_like = lambda array: filled(array.shape, array.dtype)
    monkeypatch.setattr("llmzip.exact.cpu.np", poisoned)


def _same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether all bits agree, minus zero and zero told apart."""
    if found.dtype == np.float32:
        return np.array_equal(found.view(np.int32), expected.view(np.int32))
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def _rows(n_rows: int, width: int, seed: int = 0) -> Floats:
    """Rows of very different sizes, with zeros, ties, signed zeros and a row below the smallest that counts."""
    rng = np.random.default_rng((seed, n_rows, width))
    x = rng.normal(size=(n_rows, width)) * 2.0 ** rng.integers(-20, 20, size=(n_rows, 1))
    x = x.astype(np.float32)
    x[::3, ::2] = np.rint(x[::3, ::2])
    x[1::4] *= np.float32(2.0**-90)
    x[2::5, ::3] = -0.0
    return x


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("limit", [ONE_LIMB, TWO_LIMBS, 32767])
def test_quantise_rows(width: int, limit: int) -> None:
    """Integers and scales agree, and padding is zero."""
    x = _rows(11, width)
    found, expected = CPU.quantise_rows(x, limit), REFERENCE.quantise_rows(x, limit)
    assert _same(found.q[:, :width], expected.q)
    assert not found.q[:, width:].any()
    assert _same(found.scale, expected.scale)


def test_quantise_rows_at_the_edges() -> None:
    """The smallest row that counts, the one below, subnormal numbers, the greatest floats, and exact ties."""
    edge = np.float32(2.0**-60)
    x = np.zeros((6, 5), np.float32)
    x[0, 2], x[1, 2] = edge, np.nextafter(edge, np.float32(0))
    x[2] = [1e-45, -1e-45, 1, 0, -0.0]
    x[3] = [3.4e38, -3.4e38, 1, 1e30, -1e37]
    x[4] = [127, 0.5, 1.5, -2.5, -0.5]
    x[5] = [-8191, 4095.5, 0.5, 1.5, 2.5]
    for limit in (ONE_LIMB, TWO_LIMBS, 32767):
        found, expected = CPU.quantise_rows(x, limit), REFERENCE.quantise_rows(x, limit)
        assert _same(found.q[:, :5], expected.q)
        assert _same(found.scale, expected.scale)
    assert REFERENCE.quantise_rows(x, ONE_LIMB).q[4].tolist() == [127, 0, 2, -2, 0]
    assert REFERENCE.quantise_rows(x, ONE_LIMB).q[1].tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"R{s[0]}-K{s[1]}-N{s[2]}")
@pytest.mark.parametrize("limit", [ONE_LIMB, TWO_LIMBS])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear(shape: tuple[int, int, int], limit: int, with_bias: bool) -> None:
    """Shapes of one, odd ones, and one past a tile of rows, pairs or columns."""
    R, K, N = shape
    bias = _rows(1, N, seed=2)[0] if with_bias else None
    matrix = QuantisedMatrix(*quantise_matrix(_rows(N, K, seed=1)), bias, limit)
    x = _rows(R, K)
    expected = REFERENCE.linear(REFERENCE.quantise_rows(x, limit), matrix)
    assert _same(CPU.linear(CPU.quantise_rows(x, limit), CPU.load(matrix)), expected)


@pytest.mark.parametrize(
    ("n_terms", "limit"), [(n, TWO_LIMBS) for n in (2047, 2048, 2049, 2064, 2066, 4097, 6200)] + [(133_200, ONE_LIMB)]
)
def test_linear_beyond_int32(n_terms: int, limit: int) -> None:
    """Sums that leave int32 are whole integers, rounded once, with like signs and cancelling ones."""
    signs = np.ones((3, n_terms), np.float32)
    signs[1, n_terms // 2 :] = -1
    signs[2, -1] = -1
    matrix = QuantisedMatrix(*quantise_matrix(np.ones((17, n_terms), np.float32)), None, limit)
    found = CPU.linear(CPU.quantise_rows(signs, limit), CPU.load(matrix))
    assert _same(found, REFERENCE.linear(REFERENCE.quantise_rows(signs, limit), matrix))
    assert abs(float(found[0, 16]) / n_terms - 1) < 1e-6


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-12])
def test_norms(width: int, eps: float) -> None:
    """RMS norm, and layer norm with its bias."""
    x, weight, bias = _rows(9, width), _rows(1, width, seed=1)[0], _rows(1, width, seed=2)[0]
    assert _same(CPU.norm(x, weight, None, eps), reference.rms_norm(x, weight, eps))
    assert _same(CPU.norm(x, weight, bias, eps), reference.layer_norm(x, weight, bias, eps))


@pytest.mark.parametrize(("head_width", "rotary_width"), [(2, 2), (6, 2), (7, 6), (16, 16), (34, 32)])
def test_rotate(head_width: int, rotary_width: int) -> None:
    """Whole and partial rotations at scattered positions: two rounded products, never a fused one."""
    cos, sin = tables.rotary_tables(rotary_width, 1e4, None, 64)
    positions = np.array([0, 1, 63, 17, 17], np.int32)
    x = _rows(5, 3 * head_width)
    expected = REFERENCE.rotate(x, head_width, cos, sin, positions)
    assert _same(CPU.rotate(x.copy(), head_width, cos, sin, positions), expected)


def test_a_fused_multiply_add_would_show() -> None:
    """The rotation of the test above differs from one whose second product is not rounded."""
    cos, sin = tables.rotary_tables(16, 1e4, None, 64)
    a, b = _rows(64, 8, seed=3), _rows(64, 8, seed=4)
    rotated = CPU.rotate(np.concatenate([a, b], axis=1), 16, cos, sin, np.arange(64, dtype=np.int32))
    fused = ((a * cos).astype(np.float64) - b.astype(np.float64) * sin).astype(np.float32)
    assert not _same(rotated[:, :8], fused)


def test_a_reciprocal_in_place_of_a_division_would_show() -> None:
    """The scale of a row is a quotient: for some rows the product with 1 / limit is another number."""
    x = np.linspace(1, 2, 999, dtype=np.float32)[:, None]
    scale = CPU.quantise_rows(x, ONE_LIMB).scale
    assert _same(scale, x[:, 0] / np.float32(127))
    assert not _same(scale, x[:, 0] * (np.float32(1) / np.float32(127)))


def test_double_rounding_would_show() -> None:
    """A product of three factors in wider arithmetic, rounded once, differs from the rule's two roundings."""
    x = _rows(40, 9, seed=5)
    matrix = QuantisedMatrix(*quantise_matrix(_rows(40, 9, seed=6)), None, ONE_LIMB)
    rows = REFERENCE.quantise_rows(x, ONE_LIMB)
    acc = rows.q.astype(np.float64) @ matrix.q.astype(np.float64).T
    wide = (acc * rows.scale[:, None] * matrix.scale[None, :].astype(np.float64)).astype(np.float32)
    assert not _same(CPU.linear(CPU.quantise_rows(x, ONE_LIMB), CPU.load(matrix)), wide)


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh", "gelu", "relu2"])
@pytest.mark.parametrize("gated", [False, True])
def test_activations(kind: str, gated: bool) -> None:
    """From far below the smallest exponential to far above, both zeros, and all steps of the normal table."""
    line = np.concatenate([np.linspace(-9, 9, 4001), np.arange(-7, 7, 1 / 512), [0.0, -0.0, 1e5, -1e5, 1e-30, -1e-30]])
    gate = np.stack([line, line[::-1]]).astype(np.float32)
    up = _rows(2, gate.shape[1]) if gated else None
    assert _same(CPU.activate(kind, gate, up), REFERENCE.activate(kind, gate, up))


def _attention_spec(group: int, head_width: int) -> ModelSpec:
    return ModelSpec("made", 16, 16, 1, 2 * group, 2, head_width, 16, 64, 0)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("head_width", [1, 5, 16, 17, 34])
@pytest.mark.parametrize("window", [0, 1, 4, 16, 17])
def test_attention(group: int, head_width: int, window: int) -> None:
    """Prefills and steps in scattered lanes, over whole and local windows, with keys and values of zeros among them."""
    spec = _attention_spec(group, head_width)
    cache, reference_cache = CPU.new_cache(spec, 3, 48), REFERENCE.new_cache(spec, 3, 48)
    for call in ([[2, 0, 19, 0], [0, 19, 1, 0]], [[0, 0, 16, 1], [1, 16, 2, 0], [2, 18, 1, 19]]):
        segments = np.array(call, np.int32)
        n_rows = int(segments[:, 2].sum())
        k, v = _rows(n_rows, 2 * head_width, seed=1), _rows(n_rows, 2 * head_width, seed=2)
        q = _rows(n_rows, 2 * group * head_width, seed=3).reshape(n_rows, -1, head_width)
        CPU.write_cache(cache, 0, segments, k, v)
        REFERENCE.write_cache(reference_cache, 0, segments, k, v)
        found = CPU.attention(cache, 0, segments, q, 0.3, window)
        expected = REFERENCE.attention(reference_cache, 0, segments, q, 0.3, window)
        assert _same(found, expected)


def test_attention_over_the_longest_window_stays_in_int32() -> None:
    """2048 keys of equal weight with values all at an extreme: the greatest sum there is."""
    spec = ModelSpec("made", 16, 16, 1, 1, 1, 2, 16, 2048, 0)
    segments = np.array([[0, 0, 2048, 0]], np.int32)
    ones = np.ones((2048, 2), np.float32)
    ones[:, 1] = -1
    cache, last = CPU.new_cache(spec, 1, 2048), np.array([[0, 0, 1, 2047]], np.int32)
    CPU.write_cache(cache, 0, segments, ones, ones)
    found = CPU.attention(cache, 0, last, ones[:1, None], 1.0, 0)[0, 0]
    assert np.abs(found - [1, -1]).max() < 1e-6


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("head_width", [2, 8, 16, 20, 34, 64])
@pytest.mark.parametrize("budget", [0, 1, 5, 16, 17])
def test_selective_attention(group: int, head_width: int, budget: int, make_parameters: Any) -> None:
    """Within one layer, lanes scattered over slots of every number, a second window among them."""
    shape = {"rotary_width": head_width, "attention_scale": head_width**-0.5, "activation": "relu2"}
    selection = Selection(4000, (budget,), mask_self=budget % 2 == 0)
    spec = dataclasses.replace(_attention_spec(group, head_width), selection=selection, **shape)
    models = [Transformer(spec, make_parameters(spec), backend) for backend in (CPU, REFERENCE)]
    caches = [model.new_cache(3, 48) for model in models]
    tokens = (np.arange(48) ** 2 % 16).astype(np.int32)
    for call in (
        [Segment(2, 0, tokens[:19]), Segment(0, 0, tokens[5:6])],
        [Segment(0, 1, tokens[:33]), Segment(1, 0, tokens[:2]), Segment(2, 19, tokens[19:20])],
        [Segment(2, 0, tokens[3:21]), Segment(1, 2, tokens[2:3]), Segment(0, 34, tokens[34:])],
    ):
        found, expected = (model.hidden(cache, call) for model, cache in zip(models, caches, strict=True))
        assert _same(found, expected)


@pytest.mark.parametrize("cutoff", [1, 1024, 2**19])
@pytest.mark.parametrize("budget", [0, 300])
def test_selective_attention_over_the_longest_window(cutoff: int, budget: int, make_parameters: Any) -> None:
    """2048 tokens and the greatest cutoff: F and a position share an integer where the key to give up is found."""
    spec = ModelSpec("made", 16, 16, 1, 1, 1, 2, 16, 2048, 0, attention_scale=30.0)
    spec = dataclasses.replace(spec, selection=Selection(cutoff, (budget,), protect_first=False))
    tokens = (np.arange(2048) * 7919 % 16).astype(np.int32)
    found, expected = (
        model.hidden(model.new_cache(1, 2048), [Segment(0, 0, tokens)])
        for model in (Transformer(spec, make_parameters(spec), backend) for backend in (CPU, REFERENCE))
    )
    assert _same(found, expected)


@pytest.mark.parametrize("V", [1, 2, 3, 16, 17, 99, 100, 101, 1000, 16385])
@pytest.mark.parametrize("peak", [0, 60])
def test_weights_and_frequencies(V: int, peak: float) -> None:
    """Weights, bucket shares and member shares, for every bucket; all weights equal in the row of zeros, or but one."""
    n = int(np.ceil(np.sqrt(V)))
    hidden, bias = _rows(7, 21), np.zeros(V, np.float32)
    hidden[0], bias[V // 2] = 0, peak
    matrix = QuantisedMatrix(*quantise_matrix(_rows(V, 21, 1)), bias, TWO_LIMBS)
    weights, shares = REFERENCE.predict(hidden, matrix, n)
    found, found_shares = CPU.predict(hidden, CPU.load(matrix), n)
    assert _same(found, weights)
    assert _same(found_shares, shares)
    assert weights.min() >= 1
    assert len(set(weights[0])) == min(V, 1 + (peak > 0))
    assert (shares.sum(axis=1, dtype=np.int64) == 2**24 - n).all()
    for bucket in {*range(min(40, -(-V // n))), -(-V // n) - 1}:
        buckets = np.full(7, bucket, np.int32)
        shares = REFERENCE.member_frequencies(weights, buckets, n)
        assert _same(CPU.member_frequencies(weights, buckets, n), shares)
        assert (shares.sum(axis=1, dtype=np.int64) == 2**24 - n).all()


@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32))
def test_linear_of_any_shape(n_rows: int, n_terms: int, n_columns: int, seed: int) -> None:
    """Random shapes and numbers."""
    matrix = QuantisedMatrix(*quantise_matrix(_rows(n_columns, n_terms, seed)), None, TWO_LIMBS)
    x = _rows(n_rows, n_terms, seed + 1)
    expected = REFERENCE.linear(REFERENCE.quantise_rows(x, TWO_LIMBS), matrix)
    assert _same(CPU.linear(CPU.quantise_rows(x, TWO_LIMBS), CPU.load(matrix)), expected)
