"""Time and memory along each axis of `bench.growth`, a column of two diagrams an axis."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Measured(Protocol):
    """What is drawn of a point."""

    def time(self, way: str) -> float:
        """Seconds."""

    def memory(self, way: str) -> float:
        """Megabytes."""


def draw(found: Mapping[tuple[str, int], Measured], ways: Sequence[str], path: Path) -> None:
    """Draw the diagrams; a line on standard error says so where that cannot be."""
    try:
        from matplotlib import figure
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return
    axes_names = list(dict.fromkeys(axis for axis, _ in found))
    picture = figure.Figure(figsize=(3.2 * len(axes_names), 5), layout="constrained")
    grid = picture.subplots(2, len(axes_names), squeeze=False, sharex="col")
    for column, axis in enumerate(axes_names):
        values = sorted(value for of_axis, value in found if of_axis == axis)
        times = {way: [found[axis, value].time(way) for value in values] for way in ways}
        memory = {way: [found[axis, value].memory(way) for value in values] for way in ways}
        _diagram(grid[0][column], values, times)
        _diagram(grid[1][column], values, memory)
        grid[1][column].set_xlabel(axis)
    grid[0][0].set_ylabel("seconds")
    grid[1][0].set_ylabel("MB")
    grid[0][0].legend()
    picture.savefig(path, dpi=150)


def _diagram(axes: Any, xs: Sequence[int], lines: Mapping[str, Sequence[float]]) -> None:
    """From zero on, so that heights can be compared."""
    for name, ys in lines.items():
        axes.plot(xs, ys, "o-", label=name)
    axes.set_ylim(bottom=0)
    axes.set_xticks(xs, [f"{x:,}" for x in xs], rotation=45, ha="right")
    axes.grid(alpha=0.3)
