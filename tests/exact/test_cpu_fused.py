from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact import tables
from llmzip.exact.backend import Backend
from llmzip.exact.cpu import CpuBackend
from llmzip.exact.cpu_fused import supports
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix
from llmzip.exact.reference_backend import ReferenceBackend
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Parameters, Segment, Transformer


class _OneByOne(CpuBackend):
    def fuse(self, *_model: object) -> None:
        return None


def _hidden(spec: ModelSpec, parameters: Parameters, backend: Backend) -> list[NDArray[np.float32]]:
    return _run(Transformer(spec, parameters, backend))


def _run(model: Transformer) -> list[NDArray[np.float32]]:
    """Hidden rows of a prefill of two lanes of three, and of steps of both in another order."""
    cache = model.new_cache(3, 24)
    tokens = (np.arange(20) ** 3 % model.spec.vocab_size).astype(np.int32)
    rows = [model.hidden(cache, [Segment(2, 0, tokens), Segment(0, 0, tokens[:7])])]
    for i in range(3):
        lanes, positions = np.array([0, 2], dtype=np.int32), np.array([7 + i, 20 + i], dtype=np.int32)
        rows.append(model.step(cache, lanes, positions, tokens[[i, 2 * i]]))
    return rows


def test_all_layers_at_once_are_the_operations_one_by_one(variant: ModelSpec, make_parameters: Any) -> None:
    """For every variant that can run so, and for none besides."""
    parameters = make_parameters(variant)
    fused = Transformer(variant, parameters, CpuBackend()).fused
    assert (fused is not None) == supports(variant) == (variant.family not in ("qwen3", "gemma3"))
    for found, expected in zip(
        _hidden(variant, parameters, CpuBackend()), _hidden(variant, parameters, _OneByOne()), strict=True
    ):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("variant", ["llama", "gpt2"], indirect=True)
def test_embeddings_are_scaled(variant: ModelSpec, make_parameters: Any) -> None:
    """By a factor that is no power of two, with learned positions and without."""
    scaled = replace(variant, embedding_scale=4.9)
    parameters = make_parameters(scaled)
    assert Transformer(scaled, parameters, CpuBackend()).fused is not None
    found, expected = (_hidden(scaled, parameters, backend) for backend in (CpuBackend(), _OneByOne()))
    assert _equal(found, expected)
    assert not _equal(found, _hidden(variant, parameters, CpuBackend()))


@pytest.mark.parametrize("variant", ["llama"], indirect=True)
@pytest.mark.parametrize("part", ["q", "k", "v", "o", "gate", "up", "down"])
@pytest.mark.parametrize("limit", [ONE_LIMB, TWO_LIMBS])
def test_each_matrix_has_its_own_limit(variant: ModelSpec, make_parameters: Any, part: str, limit: int) -> None:
    """Rows are quantised again where the next matrix of the same input asks for another limit."""
    matrices, vectors = make_parameters(variant)
    other = TWO_LIMBS if limit == ONE_LIMB else ONE_LIMB
    mixed = {
        name: replace(matrix, limit=limit if name.endswith("." + part) else other) for name, matrix in matrices.items()
    }
    parameters = Parameters(mixed, vectors)
    found, expected = (_hidden(variant, parameters, backend) for backend in (CpuBackend(), _OneByOne()))
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


fused = pytest.mark.parametrize("variant", ["llama", "gpt_neox", "gpt2", "selective"], indirect=True)


class _MadeWhenRead(Mapping[str, NDArray[np.float32]]):
    """Arrays that live no longer than whoever asked for them keeps them."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._arrays[name].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _equal(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@fused
def test_arrays_live_as_long_as_their_addresses(variant: ModelSpec, make_parameters: Any) -> None:
    """Also where nobody else keeps them."""
    parameters = make_parameters(variant)
    expected = _hidden(variant, parameters, _OneByOne())
    model = Transformer(variant, Parameters(dict(parameters.matrices), _MadeWhenRead(parameters.vectors)), CpuBackend())
    gc.collect()
    rubbish = [np.full(variant.width, np.nan, np.float32) for _ in range(1000)]
    assert _equal(_run(model), expected)
    assert len(rubbish) == 1000


def _strided(array: NDArray[Any]) -> NDArray[Any]:
    """The same elements with others between them."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _unaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same elements at an odd address."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


@fused
@pytest.mark.parametrize("lay_out", [_strided, _unaligned, np.asfortranarray])
def test_how_parameters_lie_in_memory_is_free(lay_out: Any, variant: ModelSpec, make_parameters: Any) -> None:
    """Strided, unaligned or column by column, as slices and maps of files may be."""
    matrices, vectors = make_parameters(variant)
    moved = {
        name: QuantisedMatrix(
            lay_out(matrix.q),
            lay_out(matrix.scale),
            matrix.bias if matrix.bias is None else lay_out(matrix.bias),
            matrix.limit,
        )
        for name, matrix in matrices.items()
    }
    parameters = Parameters(moved, {name: lay_out(vector) for name, vector in vectors.items()})
    expected = _hidden(variant, Parameters(matrices, vectors), ReferenceBackend())
    assert _equal(_hidden(variant, parameters, CpuBackend()), expected)
    assert _equal(_hidden(variant, parameters, _OneByOne()), expected)
    logits = [
        Transformer(variant, p, CpuBackend()).logits(expected[0]) for p in (parameters, Parameters(matrices, vectors))
    ]
    assert np.array_equal(logits[0], logits[1])


@pytest.mark.parametrize("variant", ["gpt_neox"], indirect=True)
@pytest.mark.parametrize("name", ["layers.1.q", "layers.0.down", "layers.1.mlp_norm", "layers.0.attention_norm.bias"])
def test_missing_parameters_are_named(name: str, variant: ModelSpec, make_parameters: Any) -> None:
    """When the model is made, not by a read of address 0."""
    matrices, vectors = make_parameters(variant)
    left = Parameters(*({key: value for key, value in part.items() if key != name} for part in (matrices, vectors)))
    with pytest.raises(KeyError, match=name):
        Transformer(variant, left, CpuBackend())


@fused
def test_no_rows_are_no_work(variant: ModelSpec, make_parameters: Any) -> None:
    """A step of no lanes gives no rows and changes nothing."""
    model = Transformer(variant, make_parameters(variant), CpuBackend())
    cache, none = model.new_cache(2, 24), np.empty(0, np.int32)
    tokens = np.arange(5, dtype=np.int32)
    model.hidden(cache, [Segment(1, 0, tokens)])
    assert model.step(cache, none, none, none).shape == (0, variant.width)
    found = model.hidden(cache, [Segment(1, 5, tokens)])
    assert np.array_equal(found, model.hidden(model.new_cache(1, 24), [Segment(0, 0, np.tile(tokens, 2))])[5:])


@fused
def test_threads_share_a_model(variant: ModelSpec, make_parameters: Any) -> None:
    """Each with a cache of its own."""
    model = Transformer(variant, make_parameters(variant), CpuBackend())
    expected = _run(model)
    with ThreadPoolExecutor(3) as pool:
        assert all(_equal(found, expected) for found in pool.map(lambda _: _run(model), range(9)))


@fused
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_holds_addresses_is_not_copied(clone: Any, variant: ModelSpec, make_parameters: Any) -> None:
    """The copy's would lead to the arrays of the first, and when that is gone, to nothing."""
    model = Transformer(variant, make_parameters(variant), CpuBackend())
    for holder in (model.fused, model.new_cache(2, 24)):
        with pytest.raises(TypeError, match="addresses"):
            clone(holder)


@pytest.mark.parametrize("backend", [CpuBackend(), _OneByOne(), ReferenceBackend()], ids=["fused", "cpu", "reference"])
@fused
def test_positions_beyond_the_capacity_are_refused(backend: Any, variant: ModelSpec, make_parameters: Any) -> None:
    """Also those for which a padded cache would have room: tables of angles have none."""
    short = replace(variant, max_positions=21)
    model = Transformer(short, make_parameters(short), backend)
    tokens = np.arange(22, dtype=np.int32)
    assert len(tables.spec_rotary_tables(short, False, 21)[0]) == 21
    with pytest.raises(ValueError, match="expected at most 21 positions, found"):
        model.hidden(model.new_cache(1, 21), [Segment(0, 0, tokens)])
    cache = model.new_cache(1, 21)
    model.hidden(cache, [Segment(0, 0, tokens[:21])])
    with pytest.raises(ValueError, match="expected at most 21 positions, found"):
        model.step(cache, np.array([0], np.int32), np.array([21], np.int32), np.array([3], np.int32))
