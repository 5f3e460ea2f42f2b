from __future__ import annotations

from bench.timing import Spread, interleave


def test_spread_of_one_repetition_is_that_repetition() -> None:
    """A single run is its own median and its own bounds."""
    assert Spread.of([3.0]) == Spread(1, 3.0, 3.0, 3.0)


def test_spread_does_not_depend_on_the_order() -> None:
    """Of eleven evenly spaced times the bounds are the third, the sixth and the ninth."""
    assert Spread.of(float(i * 7 % 11) for i in range(11)) == Spread(11, 2.0, 5.0, 8.0)


def test_cases_take_turns() -> None:
    """Every case runs once before any runs twice."""
    order: list[str] = []
    seconds = interleave({name: lambda name=name: order.append(name) for name in "ab"}, repeats=3)  # type: ignore[misc]
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
