# ruff: noqa: TID253
"""Each kernel against the reference's function, on lengths of one, primes, and one past a tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("triton")

from llmzip.exact import reference
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix, quantise_matrix
from llmzip.exact.reference_backend import ReferenceBackend, SelectiveReferenceCache
from llmzip.exact.spec import ModelSpec, Selection
from llmzip_kernels import activation, attention, embedding, heads, linear, norm, output, quantise, runs, selection
from llmzip_kernels import shifts as shifting
from llmzip_kernels.launching import device, to_device

Floats = NDArray[np.float32]
LIMITS = (ONE_LIMB, TWO_LIMBS)
SHAPES = [(1, 1), (3, 7), (5, 64), (17, 65)]
CPU = ReferenceBackend()


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds what spoils every result that it gets into."""
    empty, empty_like = torch.empty, torch.empty_like

    def poisoned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 101)

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poisoned(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poisoned(empty_like(*args, **kwargs)))


def _floats(*shape: int, seed: int = 5) -> Floats:
    """Rows of ordinary spread, of extremes, of zeros, and too small to count."""
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if len(x) > 4:
        x[1] = 0
        x[2] *= np.float32(2.0**-62)
        x[3] = np.float32(2.0**-58)
        x[4] *= np.float32(2.0**60)
    return x


def _numpy(tensor: torch.Tensor) -> Any:
    return tensor.cpu().numpy()


def _integers(rows: quantise.LimbRows, width: int) -> NDArray[np.int32]:
    """The integers of limbs; beyond the width there are zeros."""
    q = _numpy(rows.q).astype(np.int32)
    whole: NDArray[np.int32] = q[0] if len(q) == 1 else 128 * q[0] + q[1]
    assert not whole[:, width:].any()
    return whole[:, :width]


def _assert_rows(found: quantise.LimbRows, x: Floats, limit: int) -> None:
    expected = reference.quantise_rows(x, limit)
    assert np.array_equal(_integers(found, x.shape[1]), expected.q)
    assert np.array_equal(_numpy(found.scale), expected.scale)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantised_rows(shape: tuple[int, int], limit: int) -> None:
    """Integers and scales, in one limb and in two."""
    x = _floats(*shape)
    _assert_rows(quantise.quantise_rows(to_device(x), limit), x, limit)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("n_rows", "n_terms", "n_columns"), [(1, 1, 1), (5, 65, 67), (65, 37, 3), (3, 2100, 5)])
def test_products(n_rows: int, n_terms: int, n_columns: int, limit: int) -> None:
    """With and without bias and residual, also where sums of two limbs leave int32."""
    x, weight, residual = _floats(n_rows, n_terms), _floats(n_columns, n_terms, seed=6), _floats(n_rows, n_columns)
    x[0], weight[0] = 1, 1
    matrix = QuantisedMatrix(*quantise_matrix(weight), _floats(n_columns), limit)
    plain = QuantisedMatrix(matrix.q, matrix.scale, None, limit)
    rows, expected = quantise.quantise_rows(to_device(x), limit), reference.quantise_rows(x, limit)
    found = linear.linear(rows, linear.load_matrix(matrix), to_device(residual))
    assert np.array_equal(_numpy(found), residual + reference.linear(expected, matrix))
    assert np.array_equal(_numpy(linear.linear(rows, linear.load_matrix(plain))), reference.linear(expected, plain))


def test_stacked_matrices_are_the_single_ones() -> None:
    """Side by side they give what each gives, and each goes on to work as a part of them."""
    x, weights = _floats(5, 30), [_floats(n, 30, seed=n) for n in (60, 4, 9)]
    matrices = [QuantisedMatrix(*quantise_matrix(w), _floats(len(w)), TWO_LIMBS) for w in weights]
    loaded = [linear.load_matrix(matrix) for matrix in matrices]
    rows, expected = quantise.quantise_rows(to_device(x), TWO_LIMBS), reference.quantise_rows(x, TWO_LIMBS)
    products = [reference.linear(expected, matrix) for matrix in matrices]
    assert np.array_equal(_numpy(linear.linear(rows, linear.stack(loaded))), np.concatenate(products, axis=1))
    for matrix, product in zip(loaded, products, strict=True):
        assert np.array_equal(_numpy(linear.linear(rows, matrix)), product)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norms(shape: tuple[int, int], kind: str) -> None:
    """Into floats, added to a residual, and quantised."""
    x, residual = _floats(*shape), _floats(*shape, seed=8)
    weight, bias = _floats(2, shape[1], seed=7)
    shift = to_device(bias) if kind == "layer" else None
    expected = CPU.norm(x, weight, bias if kind == "layer" else None, 1e-5)
    arguments = (to_device(x), to_device(weight), shift, 1e-5)
    assert np.array_equal(_numpy(norm.norm(*arguments)), expected)
    assert np.array_equal(_numpy(norm.norm(*arguments, to_device(residual))), residual + expected)
    for limit in LIMITS:
        _assert_rows(norm.norm_rows(*arguments, limit), expected, limit)


@pytest.mark.parametrize("kind", list(activation.KINDS))
def test_activations(kind: str) -> None:
    """Plain and gated, into floats and quantised, from halves of wider rows; far out, at zero and at minus zero."""
    both = _floats(5, 134) * 3
    both[0, :4] = (0.0, -0.0, 40.0, -40.0)
    both[4] = np.clip(both[4], -1e11, 1e11)
    gate, up = both[:, :67], both[:, 67:]
    found = to_device(both)
    expected = reference.ACTIVATIONS[kind](gate)
    assert np.array_equal(_numpy(activation.activate(kind, found[:, :67], None)), expected)
    assert np.array_equal(_numpy(activation.activate(kind, found[:, :67], found[:, 67:])), expected * up)
    for limit in LIMITS:
        _assert_rows(activation.activate_rows(kind, found[:, :67], found[:, 67:], limit), expected * up, limit)


def test_rotation() -> None:
    """Of a part of a head, at positions of their own."""
    x, (cos, sin) = _floats(5, 3, 11), _floats(2, 9, 4)
    positions = np.array([8, 0, 3, 3, 7], np.int32)
    found = heads.rotate(to_device(x), heads.Rotation(to_device(cos), to_device(sin)), to_device(positions))
    assert np.array_equal(_numpy(found), reference.rotate(x, cos[positions], sin[positions]))


def test_embeddings() -> None:
    """Of tokens, times a factor, and of rows that stand for themselves; plus learned positions."""
    q, scale = quantise_matrix(_floats(7, 13))
    prefix, learned = _floats(2, 13, seed=2), _floats(9, 13, seed=3)
    tokens, positions = np.array([0, 6, 8, 7, 3], np.int32), np.array([0, 8, 1, 2, 5], np.int32)
    expected = np.empty((5, 13), np.float32)
    for i, token in enumerate(tokens):
        expected[i] = (
            prefix[token - 7] if token >= 7 else (q[token].astype(np.float32) * scale[token]) * np.float32(4.9)
        )
    known = (to_device(tokens), to_device(positions), to_device(q), to_device(scale))
    for added in (None, learned):
        factor = float(np.float32(4.9))
        found = embedding.embed(*known, 7, factor, to_device(prefix), None if added is None else to_device(added))
        assert np.array_equal(_numpy(found), expected if added is None else expected + added[positions])


@pytest.mark.parametrize("n_tables", [1, 2, 3])
def test_runs(n_tables: int) -> None:
    """What tables hold for runs of great ids, whose products leave 32 bits."""
    tables = [QuantisedMatrix(*quantise_matrix(_floats(64, 5, seed=i)), None, ONE_LIMB) for i in range(n_tables)]
    x, found = _floats(5, 5 * n_tables), np.random.default_rng(1).integers(0, 1 << 24, (5, n_tables + 1))
    q, scale = np.stack([table.q for table in tables]), np.stack([table.scale for table in tables])
    y = runs.embed_runs(to_device(x), to_device(q), to_device(scale), to_device(found.astype(np.int32)))
    assert np.array_equal(_numpy(y), reference.embed_runs(x, tables, found))


def test_runs_are_found_across_calls() -> None:
    """Before a window and for a prefix stands BOS; before a segment what its lane was given earlier."""
    kept = to_device(np.full((3, 8), -5, np.int32))
    firsts, lanes = np.array([0, 0, 0, 3, 3], np.int32), np.array([2, 2, 2, 0, 0], np.int32)
    calls = [([4, 9, 6, 7, 8], [0, 1, 2, 0, 1]), ([1, 2, 3, 5, 0], [3, 4, 5, 2, 3])]
    found = []
    for tokens, positions in calls:
        where = (to_device(lanes), to_device(np.array(positions, np.int32)), to_device(firsts))
        row_tokens = to_device(np.array(tokens, np.int32))
        found.append(_numpy(runs.find_runs(row_tokens, *where, kept, 9, 1, 3)).tolist())
    assert found[0] == [[4, 1, 1], [1, 4, 1], [6, 1, 4], [7, 1, 1], [8, 7, 1]]
    assert found[1] == [[1, 6, 1], [2, 1, 6], [3, 2, 1], [5, 8, 7], [0, 5, 8]]


def test_shifts() -> None:
    """Of steered rows only; the others stay as they are, minus zero too."""
    x, shifts = _floats(4, 13), _floats(3, 5, 13, seed=9)
    x[0, 0], lanes = -0.0, np.array([2, 0, 1, 2], np.int32)
    steered = np.array([0, 1, 1, 1], np.int32)
    found = shifting.shift(to_device(x), to_device(shifts), to_device(lanes), to_device(steered), 3)
    expected = np.where(steered[:, None] != 0, x + shifts[lanes, 3], x)
    assert _numpy(found).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("vocab_size", "n"), [(1, 1), (83, 10), (4099, 65)])
def test_frequencies(vocab_size: int, n: int) -> None:
    """Weights of all tokens, shares of buckets, and of the members of one bucket, the last one's too."""
    logits = _floats(3, vocab_size) * 9
    weights, sums = output.output_weights(to_device(logits), n)
    expected = reference.output_weights(logits)
    padded = np.zeros((3, n * n), np.int64)
    padded[:, :vocab_size] = expected
    buckets = padded.reshape(3, n, n)
    assert np.array_equal(_numpy(weights), expected)
    assert np.array_equal(_numpy(sums), buckets.sum(axis=2))
    shares = reference.frequencies(buckets.sum(axis=2)).astype(np.float32)
    assert np.array_equal(_numpy(output.bucket_frequencies(sums)), shares)
    chosen = np.array([0, (vocab_size - 1) // n, (vocab_size - 1) // n // 2], np.int32)
    members = reference.frequencies(buckets[np.arange(3), chosen]).astype(np.float32)
    assert np.array_equal(_numpy(output.member_frequencies(weights, to_device(chosen), n)), members)


HEADS = heads.Heads(6, 2, 10)
SEGMENTS = np.array([[1, 0, 3, 0], [0, 3, 70, 0], [2, 73, 1, 0]], np.int32)


def _spec(selected: Selection | None = None) -> ModelSpec:
    return ModelSpec("made", 5, 8, 1, 6, 2, 10, 8, 256, 0, selection=selected)


def _places(segments: NDArray[np.int32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lanes and positions of rows."""
    lanes = np.repeat(segments[:, 0], segments[:, 2])
    positions = np.concatenate([np.arange(start, start + n) for _, _, n, start in segments])
    return to_device(lanes), to_device(positions.astype(np.int32))


@pytest.mark.parametrize("window", [0, 7])
def test_attention(window: int) -> None:
    """Normed and rotated heads of several lanes in one call, over more keys than a tile; then the last rows again."""
    x, (cos, sin), (query_norm, key_norm) = _floats(74, 100), _floats(2, 70, 4), _floats(2, 10)
    lanes, positions = _places(SEGMENTS)
    turn = _numpy(positions)

    def prepared(part: Floats, weight: Floats) -> Floats:
        normed = reference.rms_norm(part.reshape(-1, 10), weight, 1e-5).reshape(74, -1, 10)
        return reference.rotate(normed, cos[turn], sin[turn])

    cache = CPU.new_cache(_spec(), 3, 128)
    CPU.write_cache(cache, 0, SEGMENTS, prepared(x[:, 60:80], key_norm).reshape(74, 20), x[:, 80:])
    expected = CPU.attention(cache, 0, SEGMENTS, prepared(x[:, :60], query_norm), 0.31, window).reshape(74, 60)
    store = heads.new_store(3, HEADS, 128, device())
    norms = heads.HeadNorms(to_device(query_norm), to_device(key_norm), 1e-5)
    rotation = heads.Rotation(to_device(cos), to_device(sin))
    q, scale = heads.quantise_heads(to_device(x), HEADS, norms, rotation, positions, store, lanes, positions)
    scaled = float(np.float32(0.31))
    tiles = attention.cut(SEGMENTS, attention.rows_together(HEADS, step=False))
    found = attention.attention(q, scale, to_device(tiles), store, HEADS, scaled, window, step=False)
    assert np.array_equal(_numpy(found), expected)
    steps = np.array([[1, 2, 1, 2], [0, 72, 1, 69]], np.int32)
    found = attention.attention(q, scale, to_device(steps), store, HEADS, scaled, window, step=True)
    assert np.array_equal(_numpy(found)[[2, 72]], expected[[2, 72]])


def test_segments_are_cut_into_tiles() -> None:
    """Of at most so many rows, in order."""
    assert attention.cut(np.array([[4, 0, 5, 9], [7, 5, 1, 0], [2, 6, 2, 3]], np.int32), 2).tolist() == [
        [4, 0, 2, 9], [4, 2, 2, 11], [4, 4, 1, 13], [7, 5, 1, 0], [2, 6, 2, 3],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rules",
    [Selection(3000, (5,)), Selection(800, (), False, True)],
    ids=["budget", "cutoff"],
)
def test_selective_attention(rules: Selection) -> None:
    """Row by row of several lanes, two of which go on in a second call: what is seen, and F of it, is the same."""
    x = _floats(22, 100) * np.float32(2.0**-3)
    x[[1, 2, 3, 4]] = _floats(4, 100, seed=3)
    x *= 12
    calls = [np.array([[1, 0, 4, 0], [0, 4, 7, 0], [2, 11, 1, 0]], np.int32)]
    calls.append(np.array([[0, 0, 6, 7], [2, 6, 4, 1]], np.int32))
    cache = SelectiveReferenceCache(_spec(rules), 3, 32)
    store = heads.new_store(3, HEADS, 64, device())
    room = torch.full((3, 64), rules.cutoff, dtype=torch.int32, device=device())
    slots = selection.Slots(room, torch.zeros_like(room), torch.zeros_like(room[:, 0]), rules.budget(0) or 32)
    for segments, part in zip(calls, (x[:12], x[12:]), strict=True):
        n = len(part)
        q, k, v = part[:, :60].reshape(n, 6, 10), part[:, 60:80], part[:, 80:]
        expected = CPU.selective_attention(cache, 0, segments, q, k, v, 0.31).reshape(n, 60)
        own = to_device(np.arange(n, dtype=np.int32))
        new = heads.new_rows_store(n, HEADS, device())
        rows = heads.quantise_heads(to_device(part), HEADS, None, None, own, new, own, torch.zeros_like(own))
        how = selection.Rules(rules.cutoff, rules.protect_first, rules.mask_self)
        scale = float(np.float32(0.31))
        found = selection.selective_attention(*rows, to_device(segments), new, store, slots, HEADS, scale, how)
        assert np.array_equal(_numpy(found), expected)
    seen = cache.seen[0]
    assert not seen[0, :13].all()
    for lane in range(3):
        kept = _numpy(slots.forgotten)[lane] < rules.cutoff
        places = _numpy(slots.places)[lane][kept]
        assert sorted(places) == np.flatnonzero(seen[lane]).tolist()
        assert np.array_equal(_numpy(slots.forgotten)[lane][kept], cache.forgotten[0, lane, places])
