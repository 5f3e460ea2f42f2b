from __future__ import annotations

from typing import Any

import pytest

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import ModelSpec, RotaryScaling

SIZES: dict[str, Any] = {
    "family": "made",
    "vocab_size": 300,
    "width": 24,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_width": 6,
    "ff_width": 37,
    "max_positions": 64,
    "bos_id": 1,
}


def test_json_gives_the_spec_back(variant: ModelSpec) -> None:
    """For every variant; the text is canonical, since the artefact's id hashes it."""
    text = variant.to_json()
    assert ModelSpec.from_json(text) == variant
    assert ModelSpec.from_json(text).to_json() == text
    assert " " not in text.replace(variant.family, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"vocab_size": 2**24},
        {"n_kv_heads": 3},
        {"bos_id": 300},
        {"bos_id": -1},
        {"rotary_width": 5},
        {"rotary_width": 8},
        {"local_layers": (True,), "local_window": 4},
        {"local_layers": (True, False)},
        {"norm_eps": 0.0},
        {"attention_scale": float("nan")},
        {"rotary_base": float("inf")},
        {"embedding_scale": -1.0},
    ],
    ids=str,
)
def test_contradictions_are_refused_by_name(changes: dict[str, Any]) -> None:
    """The message has the field, what was expected and what was found."""
    with pytest.raises(ModelInvalidError, match=f"{next(iter(changes))}.*found"):
        ModelSpec(**(SIZES | changes))


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"family": "made"}', '{"width": 3, "depth": 4}'])
def test_other_json_is_refused(text: str) -> None:
    """Missing and unknown fields, and what is no object."""
    with pytest.raises(ModelInvalidError):
        ModelSpec.from_json(text)


def test_local_layers_are_those_marked() -> None:
    """Without marks all layers are global."""
    spec = ModelSpec(**(SIZES | {"local_layers": (True, False), "local_window": 4}))
    assert [spec.is_local(i) for i in range(2)] == [True, False]
    assert not any(ModelSpec(**SIZES).is_local(i) for i in range(2))


def test_rotary_scaling_survives_json() -> None:
    """With all its numbers."""
    spec = ModelSpec(**(SIZES | {"rotary_scaling": RotaryScaling("llama3", 32.0, 1.5, 4.5, 1000)}))
    assert ModelSpec.from_json(spec.to_json()).rotary_scaling == spec.rotary_scaling
