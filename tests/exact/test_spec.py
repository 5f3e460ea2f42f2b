from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        {"norm_eps": 0.0},
        {"attention_scale": float("nan")},
        {"rotary_base": float("inf")},
        {"embedding_scale": -1.0},
        {"rotary_base": 10**400},
        {"norm_eps": True},
        {"norm_eps": "1e-5"},
        {"width": 24.0},
        {"n_layers": True},
        {"family": None},
        {"mlp": "wide"},
        {"activation": ["silu"]},
        {"tied_head": 1},
        {"local_window": -1},
        {"local_window": 10**30},
        {"local_layers": (1, 0), "local_window": 4},
        {"local_layers": [True, False], "local_window": 4},
        {"rotary_scaling": "linear"},
        {"selection": {"cutoff": 5}},
        {"ngrams": 7},
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


def test_local_layers_need_a_window() -> None:
    """The message names the window."""
    with pytest.raises(ModelInvalidError, match=r"local_window must be in 1\.\.16777215, found 0"):
        ModelSpec(**(SIZES | {"local_layers": (True, False)}))


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{}", '{"family": "made"}', '{"width": 3, "depth": 4}', DEEP, "9" * 5000]
)
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
        (lambda: Selection(1, (4, -1)), r"selection budget of layer 1 must be in 0\.\.16777215, found -1"),
        (lambda: Selection(1, (2**24,)), r"selection budget of layer 0 must be in 0\.\.16777215, found 16777216"),
        (lambda: Selection(1, [4]), r"selection budgets must be of type tuple, found \[4\]"),  # type: ignore[arg-type]
        (lambda: Selection(True), "selection cutoff must be a whole number, found True"),
        (lambda: Selection(1, (True,)), "selection budget of layer 0 must be a whole number, found True"),
        (lambda: Selection(1, (), 1), "protect_first must be true or false, found 1"),  # type: ignore[arg-type]
        (lambda: Ngrams(0, 16), r"ngrams tables must be in 1\.\.3, found 0"),
        (lambda: Ngrams(4, 16), r"ngrams tables must be in 1\.\.3, found 4"),
        (lambda: Ngrams(True, 16), "ngrams tables must be a whole number, found True"),
        (lambda: Ngrams(1, 12), "ngrams rows must be a power of two, found 12"),
        (lambda: Ngrams(1, 1), r"ngrams rows must be in 2\.\.8388608, found 1"),
        (lambda: Ngrams(1, 0), "found 0"),
        (lambda: Ngrams(1, -16), "found -16"),
        (lambda: Ngrams(1, 2**24), "found 16777216"),
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


SELECTION = {"cutoff": 5, "budgets": [], "protect_first": True, "mask_self": False}
SCALING = {
    "kind": "linear",
    "factor": 2,
    "low_frequency_factor": 1,
    "high_frequency_factor": 4.0,
    "original_positions": 8,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": 7}, "selection must be of type dict, found 7"),
        ({"selection": "all"}, "selection must be of type dict, found 'all'"),
        ({"selection": None}, "selection must be of type dict, found None"),
        ({"selection": []}, r"selection must be of type dict, found \[\]"),
        ({"selection": {}}, r"selection must have budgets, cutoff, mask_self, protect_first, found \[\]"),
        ({"selection": {"cutoff": 5, "budgets": []}}, "selection must have mask_self, protect_first, found"),
        ({"selection": SELECTION | {"head": 1}}, "selection must have known fields only, found 'head'"),
        ({"selection": SELECTION | {"cutoff": "5"}}, "selection cutoff must be a whole number, found '5'"),
        ({"selection": SELECTION | {"cutoff": 5.0}}, "selection cutoff must be a whole number, found 5.0"),
        ({"selection": SELECTION | {"cutoff": True}}, "selection cutoff must be a whole number, found True"),
        ({"selection": SELECTION | {"cutoff": 10**300}}, r"selection cutoff must be in 1\.\.524288, found 1000"),
        ({"selection": SELECTION | {"budgets": 3}}, "selection budgets must be of type list, found 3"),
        ({"selection": SELECTION | {"budgets": {}}}, "selection budgets must be of type list, found {}"),
        ({"selection": SELECTION | {"budgets": None}}, "selection budgets must be of type list, found None"),
        ({"selection": SELECTION | {"budgets": ["3", "4"]}}, "budget of layer 0 must be a whole number, found '3'"),
        ({"selection": SELECTION | {"budgets": [3, 4.0]}}, "budget of layer 1 must be a whole number, found 4.0"),
        (
            {"selection": SELECTION | {"budgets": [3, 10**300]}},
            r"budget of layer 1 must be in 0\.\.16777215, found 1000",
        ),
        ({"selection": SELECTION | {"budgets": [3]}}, "selection budgets must have 2 entries or none, found 1"),
        ({"selection": SELECTION | {"protect_first": 1}}, "protect_first must be true or false, found 1"),
        ({"selection": SELECTION | {"mask_self": None}}, "mask_self must be true or false, found None"),
        ({"ngrams": 7}, "ngrams must be of type dict, found 7"),
        ({"ngrams": None}, "ngrams must be of type dict, found None"),
        ({"ngrams": {}}, r"ngrams must have rows, tables, found \[\]"),
        ({"ngrams": {"tables": 2}}, r"ngrams must have rows, found \['tables'\]"),
        ({"ngrams": {"tables": 2, "rows": 16.0}}, "ngrams rows must be a whole number, found 16.0"),
        ({"ngrams": {"tables": 2, "rows": "16"}}, "ngrams rows must be a whole number, found '16'"),
        ({"ngrams": {"tables": True, "rows": 16}}, "ngrams tables must be a whole number, found True"),
        ({"ngrams": {"tables": 2, "rows": 2**100}}, r"ngrams rows must be in 2\.\.8388608, found 1267"),
        ({"ngrams": {"tables": 2, "rows": 16, "seed": 1}}, "ngrams must have known fields only, found 'seed'"),
        ({"ngrams": {"tables": 2, "rows": 16, "a\nb": 1}}, r"ngrams must have known fields only, found 'a\\nb'"),
        ({"local_layers": "local"}, "local_layers must be of type list, found 'local'"),
        ({"rotary_scaling": {}}, r"rotary_scaling must have .*, found \[\]"),
        (
            {"rotary_scaling": SCALING | {"kind": "yarn"}},
            "rotary_scaling kind must be one of linear, llama3, found 'yarn'",
        ),
        ({"rotary_scaling": SCALING | {"factor": 0}}, "rotary_scaling factor must be positive and finite, found 0"),
    ],
    ids=str,
)
def test_damaged_parts_are_refused(changes: dict[str, Any], message: str) -> None:
    """As an invalid model, in one line that names the field."""
    fields = json.loads(ModelSpec(**SIZES).to_json())
    with pytest.raises(ModelInvalidError, match=message) as caught:
        ModelSpec.from_json(json.dumps(fields | changes))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)
_number = st.integers(-1, 20) | st.sampled_from([2**19, 2**64, 10**400]) | _json
_selection = st.fixed_dictionaries(
    {"cutoff": _number, "budgets": st.lists(_number, max_size=3) | _json},
    optional={"protect_first": st.booleans() | _json, "mask_self": st.booleans() | _json, "head": _json},
)
_ngrams = st.fixed_dictionaries(
    {"tables": _number, "rows": st.sampled_from([2, 16]) | _number}, optional={"seed": _json}
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "selection": _selection | _json,
            "ngrams": _ngrams | _json,
            "local_layers": st.lists(st.booleans(), max_size=3) | _json,
            "rotary_scaling": st.none() | st.just(SCALING) | _json,
        },
    ),
    st.sampled_from([field.name for field in dataclasses.fields(ModelSpec)]),
    _number,
)
def test_any_json_makes_a_spec_or_is_refused(parts: dict[str, Any], name: str, value: object) -> None:
    """With no other kind of error; a spec that is made has the same canonical text."""
    fields = json.loads(ModelSpec(**SIZES).to_json())
    for changes in (parts, {name: value}):
        try:
            spec = ModelSpec.from_json(json.dumps(fields | changes))
        except ModelInvalidError:
            continue
        assert spec.to_json() == json.dumps(fields | changes, sort_keys=True, separators=(",", ":"))
