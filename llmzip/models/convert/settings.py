"""Reading a model's configuration without trusting it: each value has its type, or a refusal that names it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import MAX_WINDOW, RotaryScaling

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class Settings:
    """A `transformers` configuration as a dictionary, read with checks."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @property
    def family(self) -> str:
        """The configuration's `model_type`."""
        return str(self._values.get("model_type"))

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it is, or `default` where it is absent or null."""
        value = self._values.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; absent without a default is refused."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise unsupported(self.family, name, "a whole number", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A real number; absent without a default is refused."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise unsupported(self.family, name, "a number", value)
        try:
            return float(value)
        except OverflowError as error:
            raise unsupported(self.family, name, "a number in the range of a float", value) from error

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise unsupported(self.family, name, "true or false", value)
        return value

    def part(self, name: str) -> Settings:
        """The settings within a setting; none where it is absent."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise unsupported(self.family, name, "an object", value)
        return Settings({"model_type": self.family, **value})

    def expect(self, name: str, *allowed: Any) -> None:
        """Refuse the model unless the setting is absent or one of `allowed`."""
        value = self.get(name)
        if value is not None and value not in allowed:
            raise unsupported(self.family, name, " or ".join(map(repr, allowed)) or "nothing", value)

    def one_of(self, name: str, *allowed: str) -> Any:
        """A word out of `allowed`; anything else, or none, is refused."""
        value = self.get(name)
        if value not in allowed:
            raise unsupported(self.family, name, f"one of {', '.join(allowed)}", value)
        return value

    def activation(self, name: str) -> Any:
        """The spec's word for the activation function that the setting names."""
        value = self.get(name)
        if value not in ACTIVATIONS:
            raise unsupported(self.family, name, f"one of {', '.join(ACTIVATIONS)}", value)
        return ACTIVATIONS[value]

    def bos_id(self) -> int:
        """The token that begins a text; models without one begin with the token that ends texts."""
        for name in ("bos_token_id", "eos_token_id"):
            value = self.get(name)
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, int):
                return value
        raise unsupported(self.family, "bos_token_id", "a token id", None)

    def no_sliding_window(self) -> None:
        """Refuse attention that is cut shorter than the longest window llmzip uses."""
        window = self.get("sliding_window")
        if self.get("use_sliding_window", True) and window is not None and window < MAX_WINDOW:
            raise unsupported(self.family, "sliding_window", f"none below {MAX_WINDOW}", window)

    def rotary(self, layer_type: str | None = None) -> Mapping[str, Any]:
        """Rotary settings under the names of transformers 5, whichever version wrote them.

        Args:
            layer_type: for families that have one set a layer type, the type asked for.
        """
        parameters = self.get("rope_parameters")
        if parameters is None:
            return self._old_rotary(layer_type)
        if layer_type is not None and layer_type in parameters:
            parameters = parameters[layer_type]
        return dict(parameters)

    def _old_rotary(self, layer_type: str | None) -> Mapping[str, Any]:
        if layer_type == "sliding_attention":
            return {"rope_theta": self.number("rope_local_base_freq", 10000.0)}
        base = self.number("rope_theta", self.number("rotary_emb_base", 10000.0))
        return {"rope_theta": base, **self.get("rope_scaling", {})}

    def rotary_scaling(self, parameters: Mapping[str, Any]) -> RotaryScaling | None:
        """How `parameters` (from `rotary`) stretch the frequencies."""
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind == "default":
            return None
        if kind == "linear":
            return RotaryScaling("linear", float(parameters["factor"]))
        if kind == "llama3":
            return RotaryScaling(
                "llama3",
                float(parameters["factor"]),
                float(parameters["low_freq_factor"]),
                float(parameters["high_freq_factor"]),
                int(parameters["original_max_position_embeddings"]),
            )
        raise unsupported(self.family, "rope_type", "default, linear or llama3", kind)


def unsupported(family: str, name: str, expected: str, found: Any) -> ModelInvalidError:
    """The refusal of a setting that the exact transformer does not have."""
    return ModelInvalidError(f"{family} model: {name}: expected {expected}, found {reprlib.repr(found)}")
