from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact.backend import Backend
from llmzip.exact.cpu import CpuBackend
from llmzip.exact.reference_backend import ReferenceBackend
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Segment, Transformer

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

own = pytest.mark.parametrize("variant", ["llama", "selective"], indirect=True)


def _ids(spec: ModelSpec, n: int) -> Ids:
    return (np.arange(n) ** 3 % spec.vocab_size).astype(np.int32)


def _prefix(spec: ModelSpec, n: int) -> Floats:
    return np.sin(np.arange(n * spec.width, dtype=np.float64)).astype(np.float32).reshape(n, spec.width)


def _shifts(spec: ModelSpec) -> Floats:
    return _prefix(spec, spec.n_layers + 1)[::-1] * np.float32(0.5)


def _window(spec: ModelSpec, tokens: Ids, n_prefix: int) -> Ids:
    """The first token, the ids of the prefix, the other tokens."""
    ids = np.arange(spec.vocab_size, spec.vocab_size + n_prefix, dtype=np.int32)
    return np.concatenate([tokens[:1], ids, tokens[1:]])


def _run(spec: ModelSpec, parameters: Any, backend: Backend) -> list[Floats]:
    """Rows of two lanes with a prefix, of which one is shifted, and of one that is plain; then a step of all."""
    model = Transformer(spec, parameters, backend)
    cache, prefix = model.new_cache(3, 40), _prefix(spec, 4)
    cache.steer(1, _shifts(spec))
    tokens = _ids(spec, 20)
    window = _window(spec, tokens, 4)
    rows = [model.hidden(cache, [Segment(0, 0, window[:9]), Segment(1, 0, window), Segment(2, 0, tokens)], prefix)]
    rows.append(model.hidden(cache, [Segment(0, 9, window[9:])], prefix))
    lanes, positions = np.array([2, 0, 1], np.int32), np.array([20, 24, 24], np.int32)
    return [*rows, model.step(cache, lanes, positions, tokens[:3])]


def test_backends_agree(variant: ModelSpec, make_parameters: Any) -> None:
    """Of every variant, lanes of all kinds side by side."""
    parameters = make_parameters(variant)
    expected = _run(variant, parameters, ReferenceBackend())
    for found, rows in zip(_run(variant, parameters, CpuBackend()), expected, strict=True):
        assert np.array_equal(found, rows)


@own
def test_a_steered_lane_is_the_specified_window(
    variant: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """As ARITHMETIC.md says it, without a cache."""
    parameters, tokens, prefix = make_parameters(variant), _ids(variant, 20), _prefix(variant, 4)
    expected, _ = masked_forward.masked_hidden(variant, parameters, tokens, prefix, _shifts(variant))
    model = Transformer(variant, parameters, CpuBackend())
    cache = model.new_cache(1, 24)
    cache.steer(0, _shifts(variant))
    assert np.array_equal(model.hidden(cache, [Segment(0, 0, _window(variant, tokens, 4))], prefix), expected)


def test_lanes_do_not_meet(variant: ModelSpec, make_parameters: Any) -> None:
    """A plain lane beside steered ones computes what it computes alone, and so does a steered one."""
    parameters = make_parameters(variant)
    beside = _run(variant, parameters, CpuBackend())
    model = Transformer(variant, parameters, CpuBackend())
    tokens, prefix = _ids(variant, 20), _prefix(variant, 4)
    plain = model.hidden(model.new_cache(1, 40), [Segment(0, 0, tokens)])
    assert np.array_equal(beside[0][9 + 24 :], plain)
    cache = model.new_cache(1, 40)
    cache.steer(0, _shifts(variant))
    steered = model.hidden(cache, [Segment(0, 0, _window(variant, tokens, 4))], prefix)
    assert np.array_equal(beside[0][9 : 9 + 24], steered)
    assert not np.array_equal(steered[-1], plain[-1])


def test_a_lane_is_let_go(variant: ModelSpec, make_parameters: Any) -> None:
    """What was steered computes as if it never had been, from its position 0 on."""
    model = Transformer(variant, make_parameters(variant), CpuBackend())
    segment = [Segment(0, 0, _ids(variant, 20))]
    cache = model.new_cache(1, 40)
    plain = model.hidden(cache, segment)
    cache.steer(0, _shifts(variant))
    assert not np.array_equal(model.hidden(cache, segment), plain)
    cache.steer(0, None)
    assert np.array_equal(model.hidden(cache, segment), plain)


@pytest.mark.parametrize("variant", ["llama", "qwen3", "gpt_neox", "gpt2"], indirect=True)
def test_a_prefix_of_embeddings_is_text(variant: ModelSpec, make_parameters: Any) -> None:
    """In models without runs of tokens, whose embeddings are not scaled."""
    parameters = make_parameters(variant)
    model = Transformer(variant, parameters, CpuBackend())
    tokens = _ids(variant, 20)
    matrix = parameters.matrices["embed"]
    prefix = matrix.q[tokens[1:5]].astype(np.float32) * matrix.scale[tokens[1:5]][:, None]
    window = _window(variant, np.concatenate([tokens[:1], tokens[5:]]), 4)
    found = model.hidden(model.new_cache(1, 24), [Segment(0, 0, window)], prefix)
    assert np.array_equal(found, model.hidden(model.new_cache(1, 24), [Segment(0, 0, tokens)]))


def test_ids_beyond_the_prefix_are_refused(variant: ModelSpec, make_parameters: Any) -> None:
    """As tokens beyond the vocabulary are."""
    model = Transformer(variant, make_parameters(variant), CpuBackend())
    with pytest.raises(ValueError, match=f"expected 0 to {variant.vocab_size + 3}, found"):
        model.hidden(
            model.new_cache(1, 24), [Segment(0, 0, _window(variant, _ids(variant, 4), 5))], _prefix(variant, 4)
        )
