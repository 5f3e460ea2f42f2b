"""Checks of single fields of a model spec; each raises `ModelInvalidError` by field, rule and what was found.

Specs are read from files that anyone can write, and their numbers go into compiled code: types are checked too, and
true is no number.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Set
from typing import Any, get_args

from llmzip.errors import ModelInvalidError


def invalid(name: str, rule: str, found: object) -> ModelInvalidError:
    """The refusal of the field `name`, in one line whatever was found."""
    return ModelInvalidError(f"model spec: {name} must {rule}, found {reprlib.repr(found)}")


def check_integer(name: str, value: Any, low: int, high: int) -> None:
    """A whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(name, "be a whole number", value)
    if not low <= value <= high:
        raise invalid(name, f"be in {low}..{high}", value)


def check_positive(name: str, value: Any) -> None:
    """A number above 0 that is finite in float64."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(name, "be a number", value)
    try:
        sound = value > 0 and math.isfinite(value)
    except OverflowError:
        sound = False
    if not sound:
        raise invalid(name, "be positive and finite", value)


def check_boolean(name: str, value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise invalid(name, "be true or false", value)


def check_word(name: str, value: Any, words: Any) -> None:
    """One of the words of a `Literal`."""
    if value not in get_args(words):
        raise invalid(name, f"be one of {', '.join(get_args(words))}", value)


def check_type(name: str, value: Any, kind: type) -> None:
    """An instance of `kind`."""
    if not isinstance(value, kind):
        raise invalid(name, f"be of type {kind.__name__}", value)


def fields_of(kind: type, name: str, value: Any, optional: Set[str] = frozenset()) -> dict[str, Any]:
    """A JSON object as arguments of the dataclass `kind`: all of its fields but the optional ones, and no others."""
    check_type(name, value, dict)
    names = {field.name for field in dataclasses.fields(kind)}
    if missing := names - optional - value.keys():
        raise invalid(name, f"have {', '.join(sorted(missing))}", sorted(value))
    if unknown := value.keys() - names:
        raise invalid(name, "have known fields only", min(unknown))
    return dict(value)


def tuple_of(name: str, value: Any) -> tuple[Any, ...]:
    """A JSON list as a tuple."""
    check_type(name, value, list)
    return tuple(value)
