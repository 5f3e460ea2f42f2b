"""A picture of ratio against speed as inline SVG, in the colours of the page that it stands in.

Every contender is a point under its name. The line joins those that no other one beats in both: the Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 520, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 44
_CHARACTER, _LINE, _RADIUS = 5.7, 12.0, 4.5


class Point(NamedTuple):
    """A contender in the picture.

    Attributes:
        name: beside it.
        speed: in KB/s, above 0.
        ratio: bits per byte.
        own: whether it is llmzip.
    """

    name: str
    speed: float
    ratio: float
    own: bool


class _Box(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: _Box) -> float:
        """The area that both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)


class _Scale(NamedTuple):
    """A range of values and the range of pixels that shows it."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that none is at least as fast and as small as, from slow to fast.

    >>> [p.name for p in pareto_front([Point("a", 1, 2, False), Point("b", 2, 1, False), Point("c", 3, 3, False)])]
    ['b', 'c']
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.speed, point.ratio)):
        if not front or point.ratio < front[-1].ratio:
            front.append(point)
    return front[::-1]


def scatter(points: Sequence[Point], x_title: str) -> str:
    """The picture of at least one point."""
    x, y = _scales(points)
    body = [*_axes(x, y, x_title), _front_line(pareto_front(points), x, y), *_marks(points, x, y)]
    label = f"bits per byte against {x_title}: " + "; ".join(
        f"{point.name} {point.ratio:.3f} at {point.speed:.3g}" for point in points
    )
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *body, "</svg>"])


def _scales(points: Sequence[Point]) -> tuple[_Scale, _Scale]:
    """Logarithms of speeds, and ratios, with room around both."""
    logs = [math.log10(point.speed) for point in points]
    ratios = [point.ratio for point in points]
    x_room = max(0.15, 0.06 * (max(logs) - min(logs)))
    y_room = max(0.02, 0.08 * (max(ratios) - min(ratios)))
    x = _Scale(min(logs) - x_room, max(logs) + x_room, _LEFT, _WIDTH - _RIGHT)
    return x, _Scale(max(0.0, min(ratios) - y_room), max(ratios) + y_room, _HEIGHT - _BOTTOM, _TOP)


def _axes(x: _Scale, y: _Scale, x_title: str) -> Iterator[str]:
    bottom, middle = _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
    for value in _log_ticks(x):
        at = x(math.log10(value))
        yield f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>'
        text = _tick_text(value)
        middle_at = min(at, _WIDTH - 2 - len(text) * _CHARACTER / 2)
        yield f'<text class="tick" x="{middle_at:.1f}" y="{bottom + 15}" text-anchor="middle">{text}</text>'
    for value in _linear_ticks(y):
        at = y(value)
        yield f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{value:g}</text>'
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>'
    centre = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="title" x="{centre}" y="{_HEIGHT - 8}" text-anchor="middle">{x_title}</text>'
    turned = f"translate(12 {middle}) rotate(-90)"
    yield f'<text class="title" transform="{turned}" text-anchor="middle">bits per byte</text>'


def _front_line(front: Sequence[Point], x: _Scale, y: _Scale) -> str:
    places = " ".join(f"{x(math.log10(point.speed)):.1f},{y(point.ratio):.1f}" for point in front)
    return f'<polyline class="front" points="{places}"/>'


def _marks(points: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    """Points and their names, those of llmzip first, so that they get the best places."""
    places = [(point, x(math.log10(point.speed)), y(point.ratio)) for point in points]
    taken = [_Box(px - _RADIUS, py - _RADIUS, px + _RADIUS, py + _RADIUS) for _, px, py in places]
    for point, px, py in sorted(places, key=lambda place: (not place[0].own, place[0].ratio)):
        kind = "own" if point.own else "other"
        told = escape(f"{point.name}: {point.ratio:.3f} bits per byte, {point.speed:,.1f} KB/s")
        box = _best_place(px, py, len(point.name) * _CHARACTER, taken)
        taken.append(box)
        yield f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{_RADIUS}"><title>{told}</title></circle>'
        x_name, anchor = (box.x0, "start") if box.x0 > px else (box.x1, "end") if box.x1 < px else (px, "middle")
        place = f'x="{x_name:.1f}" y="{box.y1 - 3:.1f}" text-anchor="{anchor}"'
        yield f'<text class="name {kind}" {place}>{escape(point.name)}</text>'


def _best_place(px: float, py: float, width: float, taken: Sequence[_Box]) -> _Box:
    """Near a point, where the name covers least of what is there already, and of what is outside the picture."""
    beside = _RADIUS + 3
    shifts = sorted(range(-48, 49, 6), key=abs)
    boxes = [
        _box_at(px + left, py + shift, width)
        for shift in shifts
        for left in (beside, -beside - width, -width / 2)
        if left != -width / 2 or abs(shift) >= _LINE
    ]
    return min(boxes, key=lambda box: _outside(box) + sum(box.overlap(other) for other in taken))


def _box_at(x0: float, middle: float, width: float) -> _Box:
    return _Box(x0, middle - _LINE / 2, x0 + width, middle + _LINE / 2)


def _outside(box: _Box) -> float:
    inside = _Box(_LEFT, _TOP, _WIDTH - 2, _HEIGHT - _BOTTOM)
    return 9 * ((box.x1 - box.x0) * (box.y1 - box.y0) - box.overlap(inside))


def _log_ticks(scale: _Scale) -> list[float]:
    """Powers of ten, with 2 and 5 between where there are few of them."""
    steps = (1, 2, 5) if scale.high - scale.low < 2.5 else (1,)
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    values = [float(step * 10**power) for power in powers for step in steps]
    return [value for value in values if scale.low <= math.log10(value) <= scale.high]


def _linear_ticks(scale: _Scale) -> list[float]:
    """Four to eight round numbers."""
    raw = (scale.high - scale.low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= raw)
    first = math.ceil(scale.low / step)
    return [round(i * step, 10) for i in range(first, math.floor(scale.high / step) + 1)]


def _tick_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
