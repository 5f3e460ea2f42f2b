"""What the engine computes for made models, pinned: it must be the same on every machine and backend, for ever."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact import reference
from llmzip.exact.backend import load_backend
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Segment, Transformer

GOLDEN = {
    "llama": "82c806a8dc2aa4f45ef1fd5192e5080196c379bf494c016676323ded01627d65",
    "llama3-untied": "98e9d1e732fd3d53b162ecb247992f1275f2f96f30e10730216c165e6a14e327",
    "qwen3": "07c7acc3025cde078299b774c50713da02578a6cd722bae059830940ca7ea2d1",
    "gpt_neox": "7b658ce4cae8ac4a5772dd9a641ef4ce6c7c06ccf9ad959f1e1dea7521169b98",
    "gpt2": "2404cb2834bca01dd5b9baf1b7698301dbcbdcb2c6648d8b2bb49856df3c7d58",
    "gemma3": "68a6c431d495694edb1148234ebf542433de24f517bf66e6c7fb0fbdf2246bcb",
    "selective": "964c3442cfde00b84715887c2b0e8594aabbbaf761f31cb145c324e8db9e5fc9",
}


TOKENS = (np.arange(40) ** 2 % 83).astype(np.int32)


@pytest.mark.parametrize("backend", ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.slow)])
def test_output_weights_are_the_pinned_ones(variant: ModelSpec, backend: str, make_parameters: Any) -> None:
    """SHA-256 of the weights after each of 40 tokens, for every variant of the transformer."""
    if backend == "cuda":
        pytest.importorskip("triton")
    model = Transformer(variant, make_parameters(variant), load_backend(backend))
    weights, _ = model.predict(model.hidden(model.new_cache(1, 40), [Segment(0, 0, TOKENS)]), 10)
    assert _digest(weights) == GOLDEN[variant.family]


@pytest.mark.parametrize("variant", ["selective"], indirect=True)
def test_selective_model_by_masks_has_the_pinned_weights(
    variant: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """Without a cache, too; both layers forget by the cutoff, and the first by its budget."""
    parameters = make_parameters(variant)
    hidden, layers = masked_forward.masked_hidden(variant, parameters, TOKENS)
    embed = parameters.matrices["embed"]
    logits = reference.linear(reference.quantise_rows(hidden, embed.limit), embed)
    assert _digest(reference.output_weights(logits)) == GOLDEN["selective"]
    assert variant.selection is not None
    for forgetting in layers:
        gone = [forgetting.f[39][k] for k in range(39) if k not in forgetting.seen[39]]
        assert max(gone) >= variant.selection.cutoff
        assert (min(gone) < variant.selection.cutoff) == (forgetting is layers[0])


def _digest(weights: NDArray[np.int32]) -> str:
    return hashlib.sha256(np.asarray(weights, dtype="<i4").tobytes()).hexdigest()
