from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench import scatter
from bench.scatter import Place

CROWD = {f"a point of number {i}": Place(60 + i / 10, 1.72 + i / 1000) for i in range(7)}


@pytest.mark.parametrize("log", [False, True], ids=["linear", "log"])
def test_names_of_near_points_do_not_overlap(log: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own place, within the picture."""
    written: list[Any] = []
    write = scatter._write

    def kept(axes: Any, *arguments: Any) -> Any:
        written.append(write(axes, *arguments))
        return written[-1]

    monkeypatch.setattr(scatter, "_write", kept)
    scatter.draw({"decode, KB/s": CROWD}, "a crowd", tmp_path / "a.png", log=log)
    names = [text for text in written if text.axes is not None]
    assert [text.get_text() for text in names] == list(CROWD)
    renderer = FigureCanvasAgg(names[0].figure).get_renderer()
    boxes = [scatter.extents_of(text, renderer) for text in names]
    for i, box in enumerate(boxes):
        assert scatter.covered(box, boxes[:i], names[0].axes.bbox.extents) == pytest.approx(0, abs=1e-6)


def test_points_are_not_covered_where_there_is_room(tmp_path: Path) -> None:
    """Two that are far apart have their names beside them."""
    scatter.draw({"x": {"a": Place(1, 1), "b": Place(9, 9)}, "y": {"a": Place(1, 1)}}, "two", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
