"""Builds frozen dataclasses from the tables of a TOML file: every key known, present, of its type and in its range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from llmzip.errors import ConfigError

T = TypeVar("T")

_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def build(kind: type[T], values: object, where: str) -> T:
    """Make a `kind` of a table.

    Args:
        kind: a dataclass of integers, floats, strings, booleans, `Literal`s of strings, other such dataclasses,
            `dict[str, X]` and `tuple[X, ...]`.
        values: the table as `tomllib` or `dataclasses.asdict` gives it.
        where: name of the table in messages.

    Raises:
        ConfigError: a key is unknown or missing, a value has another type, or the dataclass refuses it.
    """
    table = _table(values, where)
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(table.keys() - known.keys()):
        raise ConfigError(f"{where}: expected only {', '.join(known)}, found {', '.join(unknown)}")
    required = {name for name, field in known.items() if field.default is field.default_factory is MISSING}
    if missing := sorted(required - table.keys()):
        raise ConfigError(f"{where}: expected {', '.join(missing)}, found nothing")
    return kind(**{name: _convert(value, hints[name], f"{where}.{name}") for name, value in table.items()})


def _convert(value: object, hint: Any, where: str) -> object:
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        return expect_one_of(where, value, get_args(hint))
    if get_origin(hint) is dict:
        return {key: _convert(item, get_args(hint)[1], f"{where}.{key}") for key, item in _table(value, where).items()}
    if get_origin(hint) is tuple:
        return tuple(_convert(item, get_args(hint)[0], f"{where}[{i}]") for i, item in enumerate(_list(value, where)))
    return _scalar(value, hint, where)


def _scalar(value: object, hint: type, where: str) -> object:
    """An integer serves as a float; nothing else is converted, for a string or a boolean there is a mistake."""
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {_NAMES[hint]}, found {value!r}")
    return value


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a table, found {value!r}")
    return value


def _list(value: object, where: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list of tables, found {value!r}")
    return value


def expect_one_of(name: str, value: object, choices: tuple[str, ...]) -> object:
    """Refuse what is none of the choices; give it back."""
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")
    return value


def expect_at_least(name: str, value: float, low: float) -> None:
    """Refuse a number below `low`, infinity and NaN."""
    if not low <= value < math.inf:
        raise ConfigError(f"{name}: expected at least {low:g}, found {value}")


def expect_positive(name: str, value: float) -> None:
    """Refuse 0, a negative number, infinity and NaN."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}: expected a number above 0, found {value}")


def expect_share(name: str, value: float) -> None:
    """Refuse what does not lie between 0 and 1, both included."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: expected 0 to 1, found {value}")
