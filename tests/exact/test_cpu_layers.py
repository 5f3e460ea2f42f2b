from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact.cpu import CpuBackend
from llmzip.exact.cpu_layers import supports
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Parameters, Segment, Transformer


class _OneByOne(CpuBackend):
    def fuse_layers(self, *_model: object) -> None:
        return None


def _hidden(spec: ModelSpec, parameters: Parameters, backend: CpuBackend) -> list[NDArray[np.float32]]:
    """Of a prefill of two lanes of three, and of steps of both in another order."""
    model = Transformer(spec, parameters, backend)
    cache = model.new_cache(3, 24)
    tokens = (np.arange(20) ** 3 % spec.vocab_size).astype(np.int32)
    rows = [model.hidden(cache, [Segment(2, 0, tokens), Segment(0, 0, tokens[:7])])]
    for i in range(3):
        lanes, positions = np.array([0, 2], dtype=np.int32), np.array([7 + i, 20 + i], dtype=np.int32)
        rows.append(model.step(cache, lanes, positions, tokens[[i, 2 * i]]))
    return rows


def test_all_layers_at_once_are_the_operations_one_by_one(variant: ModelSpec, make_parameters: Any) -> None:
    """For every variant that can run so, and for none besides."""
    parameters = make_parameters(variant)
    fused = Transformer(variant, parameters, CpuBackend())._fused
    assert (fused is not None) == supports(variant) == (variant.family not in ("qwen3", "gemma3"))
    for found, expected in zip(
        _hidden(variant, parameters, CpuBackend()), _hidden(variant, parameters, _OneByOne()), strict=True
    ):
        assert np.array_equal(found, expected)


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
