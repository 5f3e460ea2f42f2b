"""Times of kernels and of others as multiples of their floors, a line for each case and pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.results import Figure

_MARKERS = "osD^vP*X"


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw all ways of a case and pass beside each other; a line says so where that cannot be."""
    try:
        from matplotlib import figure as drawing
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return
    points = [(f"{case}, {f.metric}", way, f.value) for f in figures for case, _, way in [f.case.rpartition(": ")]]
    floors = {line: value for line, way, value in points if way == "floor"}
    lines = {line: i for i, line in enumerate(floors)}
    ways = list(dict.fromkeys(way for _, way, _ in points if way != "floor"))
    picture = drawing.Figure(figsize=(11, 1.5 + 0.25 * len(lines)), layout="constrained")
    axes = picture.subplots()
    for i, way in enumerate(ways):
        own = [(value / floors[line], lines[line]) for line, of_way, value in points if of_way == way]
        axes.plot(*zip(*own, strict=True), _MARKERS[i % len(_MARKERS)], label=way)
    axes.set_yticks(list(lines.values()), list(lines))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="time, as a multiple of the floor")
    axes.grid(alpha=0.3)
    picture.legend(loc="outside upper center", ncols=len(ways))
    picture.savefig(path, dpi=150)
