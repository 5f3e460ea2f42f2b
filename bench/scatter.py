"""Bits per byte against speed, each point under its name, and no name over another."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# How far above or below its point a name may stand, in points of 1/72 inch.
_DISTANCES = (6, 14, 24, 36, 50, 66)


# Left, bottom, right, top, in pixels.
Box = tuple[float, float, float, float]


class Place(NamedTuple):
    """A point of the picture: decode or encode speed in KB/s, and bits per byte."""

    speed: float
    ratio: float


class Offset(NamedTuple):
    """Where a name stands, from its point, in points of 1/72 inch, and which of its ends is there."""

    x: float
    y: float
    align: str


def draw(panels: Mapping[str, Mapping[str, Place]], title: str, path: Path, *, log: bool = False) -> None:
    """Draw the panels side by side; a line on standard error says so where that cannot be.

    Args:
        panels: title of the speed to points by their names.
        title: above all.
        path: of the PNG.
        log: whether speeds are shown by their logarithms.
    """
    try:
        from matplotlib import figure
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return
    picture = figure.Figure(figsize=(8 * len(panels), 5), layout="constrained")
    for axes, (speed, points) in zip(picture.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for place in points.values():
            axes.plot([place.speed], [place.ratio], "o")
        axes.set(xlabel=speed, ylabel="bits per byte")
        if log:
            axes.set_xscale("log")
        axes.margins(0.15)
        axes.grid(alpha=0.3)
    picture.suptitle(title)
    canvas = FigureCanvasAgg(picture)
    # Names are put where there is room when all else has its place.
    canvas.draw()
    picture.set_layout_engine("none")
    for axes, points in zip(picture.axes, panels.values(), strict=True):
        _label(axes, points, canvas.get_renderer())
    picture.savefig(path, dpi=150)


def _label(axes: Any, points: Mapping[str, Place], renderer: Any) -> None:
    """Write each name where it covers neither a point nor a name, or least of them."""
    taken = [_around(axes.transData.transform(place)) for place in points.values()]
    for name, place in sorted(points.items(), key=lambda item: item[1].ratio):
        found = []
        for offset in _offsets():
            text = _write(axes, name, place, offset)
            extents = extents_of(text, renderer)
            text.remove()
            found.append((covered(extents, taken, axes.bbox.extents), offset, extents))
        _, offset, extents = min(found, key=lambda candidate: candidate[0])
        taken.append(extents)
        _write(axes, name, place, offset)


def _write(axes: Any, name: str, place: Place, offset: Offset) -> Any:
    """A name; where it is not beside its point, a line leads to it."""
    line = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.5} if abs(offset.y) > _DISTANCES[0] else None
    at = (offset.x, offset.y)
    return axes.annotate(
        name, place, at, textcoords="offset points", ha=offset.align, va="center", fontsize=8, arrowprops=line
    )


def extents_of(name: Any, renderer: Any) -> Box:
    """The box of a name alone, without its line."""
    from matplotlib.text import Text

    name.update_positions(renderer)
    left, bottom, right, top = Text.get_window_extent(name, renderer).extents
    return left, bottom, right, top


def _offsets() -> Iterator[Offset]:
    """Places for a name, near ones first."""
    for y in (0, *(sign * distance for distance in _DISTANCES for sign in (1, -1))):
        yield Offset(7, y, "left")
        yield Offset(-7, y, "right")
        if abs(y) > _DISTANCES[0]:
            yield Offset(0, y, "center")


def _around(point: Sequence[float]) -> Box:
    """The box of a mark."""
    x, y = point
    return x - 4, y - 4, x + 4, y + 4


def covered(box: Sequence[float], taken: Sequence[Box], room: Sequence[float]) -> float:
    """The area of a box (left, bottom, right, top) that others have, and nine times what is outside of the room.

    >>> covered((0, 0, 4, 2), [(3, 1, 9, 9)], (0, 0, 10, 10))
    1.0
    """
    area = (box[2] - box[0]) * (box[3] - box[1])
    return float(sum(_shared(box, other) for other in taken) + 9 * (area - _shared(box, room)))


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
