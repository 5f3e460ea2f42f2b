from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import ModelSpec, Ngrams, RotaryScaling, Selection

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
        {"selection": Selection(1, (4,))},
        {"selection": Selection(1), "local_layers": (True, False), "local_window": 4},
        {"width": 25, "ngrams": Ngrams(2, 16)},
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Selection(0), r"cutoff must be in 1\.\.524288, found 0"),
        (lambda: Selection(2**19 + 1), r"cutoff must be in 1\.\.524288, found 524289"),
        (lambda: Selection(1, (4, -1)), r"budgets must not be negative, found \(4, -1\)"),
        (lambda: Ngrams(0, 16), r"1\.\.3 tables of a power of two rows, found 0 of 16"),
        (lambda: Ngrams(4, 16), "found 4 of 16"),
        (lambda: Ngrams(1, 12), "found 1 of 12"),
        (lambda: Ngrams(1, 1), "found 1 of 1"),
        (lambda: Ngrams(1, 0), "found 1 of 0"),
        (lambda: Ngrams(1, -16), "found 1 of -16"),
        (lambda: Ngrams(1, 2**24), "found 1 of 16777216"),
    ],
)
def test_selection_and_ngrams_have_limits(make: Callable[[], object], message: str) -> None:
    """The greatest are allowed, and all beyond is refused with what was found."""
    assert Selection(2**19).budget(3) == 0
    assert Selection(1, (0, 7)).budget(1) == 7
    assert Ngrams(3, 2**23).rows == 2**23
    with pytest.raises(ModelInvalidError, match=message):
        make()


def test_json_leaves_out_what_a_model_has_not() -> None:
    """So the text of a model without selection and runs is what it was before there were any."""
    fields = json.loads(ModelSpec(**SIZES).to_json())
    assert not {"selection", "ngrams"} & fields.keys()
    assert fields.keys() == {field.name for field in dataclasses.fields(ModelSpec)} - {"selection", "ngrams"}
    spec = ModelSpec(**(SIZES | {"selection": Selection(7, (0, 3), False, True), "ngrams": Ngrams(2, 16)}))
    fields = json.loads(spec.to_json())
    assert fields["selection"] == {"cutoff": 7, "budgets": [0, 3], "protect_first": False, "mask_self": True}
    assert fields["ngrams"] == {"tables": 2, "rows": 16}
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": 7},
        {"selection": "all"},
        {"selection": {"cutoff": 5}},
        {"selection": {"cutoff": "5", "budgets": []}},
        {"selection": {"cutoff": 5, "budgets": 3}},
        {"selection": {"cutoff": 5, "budgets": ["3", "4"]}},
        {"selection": {"cutoff": 5, "budgets": [3]}},
        {"selection": {"cutoff": 5, "budgets": [], "head": 1}},
        {"ngrams": 7},
        {"ngrams": {"tables": 2}},
        {"ngrams": {"tables": 2, "rows": 16.0}},
        {"ngrams": {"tables": 2, "rows": "16"}},
        {"ngrams": {"tables": 2, "rows": 16, "seed": 1}},
    ],
    ids=str,
)
def test_damaged_selection_and_ngrams_are_refused(changes: dict[str, Any]) -> None:
    """As an invalid model, whatever stands in their place."""
    fields = json.loads(ModelSpec(**SIZES).to_json())
    with pytest.raises(ModelInvalidError):
        ModelSpec.from_json(json.dumps(fields | changes))
