from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from llmzip.errors import ConfigError
from llmzip_training.config import build, expect_at_least, expect_positive, expect_share


@dataclass(frozen=True)
class _Inner:
    n: int


@dataclass(frozen=True)
class _Outer:
    inner: _Inner
    many: tuple[_Inner, ...]
    rate: float
    kind: Literal["a", "b"] = "a"
    shares: dict[str, float] = field(default_factory=dict)
    on: bool = False


GOOD = {"inner": {"n": 1}, "many": [{"n": 2}, {"n": 3}], "rate": 1}


def test_tables_become_dataclasses() -> None:
    """Nested tables, lists of tables, dictionaries and defaults; an integer serves as a float."""
    built = build(_Outer, GOOD | {"shares": {"x": 1}, "on": True}, "top")
    assert built == _Outer(_Inner(1), (_Inner(2), _Inner(3)), 1.0, "a", {"x": 1.0}, True)
    assert type(built.rate) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": "1"}, r"top\.rate: expected a number, found '1'"),
        ({"rate": True}, r"top\.rate: expected a number, found True"),
        ({"inner": {"n": 1.0}}, r"top\.inner\.n: expected an integer, found 1\.0"),
        ({"inner": {"n": 1, "m": 2}}, r"top\.inner: expected only n, found m"),
        ({"inner": {}}, r"top\.inner: expected n, found nothing"),
        ({"inner": 5}, r"top\.inner: expected a table, found 5"),
        ({"many": [{"n": 1}, {"n": "x"}]}, r"top\.many\[1\]\.n: expected an integer, found 'x'"),
        ({"many": {"n": 1}}, r"top\.many: expected a list of tables"),
        ({"kind": "c"}, r"top\.kind: expected one of a, b, found 'c'"),
        ({"shares": {"x": "y"}}, r"top\.shares\.x: expected a number, found 'y'"),
        ({"on": 1}, r"top\.on: expected true or false, found 1"),
        ({"colour": 1}, r"top: expected only inner, .*, found colour"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_refused_with_their_place(change: dict[str, Any], message: str) -> None:
    """One line names the key, what was expected and what was found."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(_Outer, GOOD | change, "top")


def test_missing_keys_are_named() -> None:
    """What has no default has to be given."""
    with pytest.raises(ConfigError, match="expected many, rate, found nothing"):
        build(_Outer, {"inner": {"n": 1}}, "top")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_ranges_refuse_what_is_no_finite_number_in_them(value: float) -> None:
    """NaN and infinity are in no range."""
    for expect in (expect_positive, expect_share, lambda name, number: expect_at_least(name, number, 0)):
        with pytest.raises(ConfigError, match=r"^rate: expected"):
            expect("rate", value)


def test_ends_of_ranges() -> None:
    """0 is a share and at least 0, but not positive."""
    expect_share("x", 0)
    expect_share("x", 1)
    expect_at_least("x", 0, 0)
    with pytest.raises(ConfigError, match="found 0"):
        expect_positive("x", 0)
