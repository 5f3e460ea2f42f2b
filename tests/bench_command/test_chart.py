from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from llmzip.bench.chart import Point, pareto_front, scatter

_SVG = "{http://www.w3.org/2000/svg}"
_NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=24)
_POINTS = st.lists(
    st.builds(Point, _NAMES, st.floats(1e-3, 1e7), st.floats(0.01, 9.0), st.booleans()), min_size=1, max_size=15
)


def _parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", f'<svg xmlns="{_SVG[1:-1]}" ', 1))


@given(_POINTS)
def test_every_contender_is_in_the_picture(points: list[Point]) -> None:
    """Whatever the figures, a mark inside the axes and a name for each, and the picture is well-formed."""
    picture = _parse(scatter(points, "decode, KB/s"))
    marks = picture.findall(f"{_SVG}circle")
    names = [text.text for text in picture.findall(f"{_SVG}text") if "name" in text.get("class", "")]
    assert sorted(str(name) for name in names) == sorted(point.name for point in points)
    assert len(marks) == len(points)
    assert all(48 <= float(mark.get("cx", "")) <= 506 and 12 <= float(mark.get("cy", "")) <= 296 for mark in marks)


@given(_POINTS)
def test_nothing_beats_the_front(points: list[Point]) -> None:
    """No point is faster and smaller than one of the front; every other point is beaten by one of it."""
    front = pareto_front(points)
    for point in points:
        beaten = any(one.speed >= point.speed and one.ratio <= point.ratio for one in front)
        assert beaten
        assert not any(point.speed > one.speed and point.ratio < one.ratio for one in front)


def test_names_do_not_cover_each_other() -> None:
    """Five contenders in one place, and the names stand apart."""
    points = [Point(f"contender {i}", 100 + i, 2 + i / 1000, i == 0) for i in range(5)]
    points.append(Point("far", 1e5, 3, own=False))
    texts = [text for text in _parse(scatter(points, "x")).findall(f"{_SVG}text") if "name" in text.get("class", "")]
    boxes = [_place(text) for text in texts]
    assert len(boxes) == len(points)
    for (x0, x1, y), (other_x0, other_x1, other_y) in itertools.combinations(boxes, 2):
        assert x1 <= other_x0 or other_x1 <= x0 or abs(y - other_y) >= 11


def _place(text: ElementTree.Element) -> tuple[float, float, float]:
    """Left and right end, and height, of a name in letters of five and a half units."""
    x, width = float(text.get("x", "")), 5.5 * len(str(text.text))
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "")]
    return left, left + width, float(text.get("y", ""))


def test_axes_have_round_numbers() -> None:
    """Speeds by powers of ten, ratios by equal steps."""
    svg = scatter([Point("a", 0.5, 1.2, own=True), Point("b", 250_000, 2.9, own=False)], "encode, KB/s")
    ticks = re.findall(r'class="tick"[^>]*>([^<]*)<', svg)
    assert ticks == ["1", "10", "100", "1,000", "10,000", "100,000", "1.5", "2", "2.5", "3"]
