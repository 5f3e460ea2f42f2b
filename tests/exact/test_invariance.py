from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact.backend import load_backend
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Segment, Transformer

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

CAPACITY = 48


def _tokens(n: int, seed: int) -> Tokens:
    return ((np.arange(n) * 7919 + seed * 131) % 83).astype(np.int32)


def _alone(model: Transformer, tokens: Tokens) -> Floats:
    return model.logits(model.hidden(model.new_cache(1, CAPACITY), [Segment(0, 0, tokens)]))


def _equal(found: Floats, expected: Floats) -> bool:
    """Whether all bits agree; minus zero is not zero here."""
    return np.array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.fixture
def model(variant: ModelSpec, make_parameters: Any) -> Transformer:
    """The variant on the CPU backend."""
    return Transformer(variant, make_parameters(variant), load_backend("cpu"))


def test_cpu_backend_gives_the_bits_of_the_reference(model: Transformer, make_parameters: Any) -> None:
    """A whole model of every variant, prefill and steps in several lanes, is equal down to the weights."""
    reference = Transformer(model.spec, make_parameters(model.spec), load_backend("reference"))
    caches = [t.new_cache(3, CAPACITY) for t in (model, reference)]
    calls: list[Sequence[Segment]] = [
        [Segment(0, 0, _tokens(17, 1)), Segment(2, 0, _tokens(1, 2))],
        [Segment(2, 1, _tokens(20, 3)), Segment(0, 17, _tokens(2, 4)), Segment(1, 0, _tokens(5, 5))],
        [Segment(1, 5, _tokens(1, 6)), Segment(0, 19, _tokens(1, 7)), Segment(2, 21, _tokens(1, 8))],
    ]
    for call in calls:
        found, expected = (t.hidden(c, call) for t, c in zip((model, reference), caches, strict=True))
        assert np.isfinite(expected).all()
        assert _equal(found, expected)
        assert _equal(model.logits(found), reference.logits(expected))
        (weights, _), _ = predicted = [t.predict(found, 10) for t in (model, reference)]
        for of_cpu, of_reference in zip(*predicted, strict=True):
            assert np.array_equal(of_cpu, of_reference)
        buckets = (np.arange(len(weights)) % 9).astype(np.int32)
        of_cpu, of_reference = (t.backend.member_frequencies(weights, buckets, 10) for t in (model, reference))
        assert np.array_equal(of_cpu, of_reference)


def test_steps_give_the_bits_of_a_prefill(model: Transformer) -> None:
    """One token at a time, or all at once, or in uneven pieces."""
    tokens = _tokens(37, 1)
    whole = _alone(model, tokens)
    for sizes in ([1] * 37, [7, 1, 16, 13], [36, 1]):
        cache, rows, start = model.new_cache(1, CAPACITY), [], 0
        for size in sizes:
            rows.append(model.logits(model.hidden(cache, [Segment(0, start, tokens[start : start + size])])))
            start += size
        assert _equal(np.concatenate(rows), whole)


def test_a_prefix_gives_the_bits_of_the_whole(model: Transformer) -> None:
    """No row sees what comes after it."""
    tokens = _tokens(33, 2)
    whole = _alone(model, tokens)
    for n in (1, 2, 5, 6, 7, 16, 17, 32):
        assert _equal(_alone(model, tokens[:n]), whole[:n])


def test_lanes_and_their_order_do_not_matter(model: Transformer) -> None:
    """A lane among others, in any place and any order, has the bits that it has alone."""
    texts = [_tokens(n, n) for n in (1, 13, 6, 17, 2, 31, 16)]
    alone = [_alone(model, text) for text in texts]
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 2, 5, 0, 3, 1, 4]):
        cache = model.new_cache(7, CAPACITY)
        together = model.logits(model.hidden(cache, [Segment(6 - i, 0, texts[i]) for i in order]))
        assert _equal(together, np.concatenate([alone[i] for i in order]))


def test_a_used_cache_is_as_good_as_a_new_one(model: Transformer) -> None:
    """What a lane's former text left behind is not seen."""
    cache = model.new_cache(1, CAPACITY)
    model.hidden(cache, [Segment(0, 0, _tokens(CAPACITY, 9))])
    again = model.logits(model.hidden(cache, [Segment(0, 0, _tokens(9, 3))]))
    assert _equal(again, _alone(model, _tokens(9, 3)))


def test_a_lane_may_begin_anew_beside_others_that_continue(model: Transformer) -> None:
    """Its second text has the bits that it has alone, and so have the others' rows."""
    texts = [_tokens(n, n) for n in (31, 23, 19)]
    alone = [_alone(model, text) for text in texts]
    cache = model.new_cache(2, CAPACITY)
    model.hidden(cache, [Segment(0, 0, texts[0][:18]), Segment(1, 0, texts[1])])
    calls = [[Segment(1, 0, texts[2][:7]), Segment(0, 18, texts[0][18:30])]]
    calls += [[Segment(0, 30, texts[0][30:]), Segment(1, 7, texts[2][7:])]]
    first, second = (model.logits(model.hidden(cache, call)) for call in calls)
    assert _equal(first, np.concatenate([alone[2][:7], alone[0][18:30]]))
    assert _equal(second, np.concatenate([alone[0][30:], alone[2][7:]]))


def test_capacity_does_not_matter(model: Transformer) -> None:
    """A cache with room for more positions gives the same bits."""
    tokens = _tokens(19, 4)
    hidden = model.hidden(model.new_cache(1, 64), [Segment(0, 0, tokens)])
    assert _equal(model.logits(hidden), _alone(model, tokens))


def test_every_token_of_the_context_counts(model: Transformer) -> None:
    """Changing the first token changes the last row: the tests above compare something."""
    tokens = _tokens(6, 4)
    other = tokens.copy()
    other[1] = 5
    assert not _equal(_alone(model, tokens)[-1:], _alone(model, other)[-1:])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("token", [-1, 83, 2**31 - 1, -(2**31)])
def test_tokens_beyond_the_vocabulary_are_refused(
    variant: ModelSpec, backend: str, token: int, make_parameters: Any
) -> None:
    """Before anything is read of a place that is none; the lane stays as it was."""
    model = Transformer(variant, make_parameters(variant), load_backend(backend))
    cache = model.new_cache(1, CAPACITY)
    with pytest.raises(ValueError, match="tokens: expected 0 to"):
        model.hidden(cache, [Segment(0, 0, np.array([0, token], dtype=np.int32))])
    assert cache.lengths[0] == 0
