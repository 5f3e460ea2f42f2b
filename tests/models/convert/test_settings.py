from __future__ import annotations

from typing import Any

import pytest

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import RotaryScaling
from llmzip.models.convert.settings import Settings


def test_rotary_settings_read_alike_in_both_of_their_forms() -> None:
    """Version 4 of transformers spells them apart, version 5 together."""
    scaling = {"rope_type": "linear", "factor": 2.0}
    old = Settings({"rope_theta": 5e5, "rope_scaling": scaling})
    new = Settings({"rope_parameters": {"rope_theta": 5e5, **scaling}})
    assert old.rotary() == new.rotary()
    assert old.rotary_scaling(old.rotary()) == RotaryScaling("linear", 2.0)
    local = Settings({"rope_theta": 1e6, "rope_local_base_freq": 1e4})
    assert local.rotary("sliding_attention") == {"rope_theta": 1e4}
    assert local.rotary("full_attention") == {"rope_theta": 1e6}
    assert Settings({"rotary_emb_base": 7.0}).rotary() == {"rope_theta": 7.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"bos_token_id": 3}, 3), ({"bos_token_id": [4, 5]}, 4), ({"bos_token_id": None, "eos_token_id": 6}, 6)],
)
def test_texts_begin_with_the_first_token_that_is_named(values: dict[str, Any], expected: int) -> None:
    """A model without a beginning begins with what ends the text before."""
    assert Settings(values).bos_id() == expected


def test_values_of_another_kind_are_refused_by_name() -> None:
    """A configuration is input: its types are checked."""
    settings = Settings({"model_type": "llama", "hidden_size": "12", "rms_norm_eps": None, "flag": True})
    with pytest.raises(ModelInvalidError, match="llama model: hidden_size: expected a whole number, found '12'"):
        settings.integer("hidden_size")
    with pytest.raises(ModelInvalidError, match="rms_norm_eps: expected a number, found None"):
        settings.number("rms_norm_eps")
    with pytest.raises(ModelInvalidError, match="flag"):
        settings.integer("flag")
    with pytest.raises(ModelInvalidError, match="hidden_size: expected true or false, found '12'"):
        settings.boolean("hidden_size", True)
    with pytest.raises(ModelInvalidError, match="hidden_size: expected an object, found '12'"):
        settings.part("hidden_size")
    with pytest.raises(ModelInvalidError, match="bos_token_id: expected a token id"):
        settings.bos_id()


def test_parts_have_the_family_of_the_whole() -> None:
    """And are empty where they are absent or null."""
    settings = Settings({"model_type": "ours", "shape": {"width": 3, "flag": False}, "none": None})
    assert (settings.part("shape").family, settings.part("shape").integer("width")) == ("ours", 3)
    assert not settings.part("shape").boolean("flag", True)
    assert settings.part("none").boolean("flag", True)
    assert settings.part("absent").family == "ours"
