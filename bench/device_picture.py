"""Speed against lanes and against windows together, from rows of results: drawn again without what measured them."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.device_speed import TOGETHER
from bench.results import Figure

_CASE = re.compile(rf"(.+, windows of \d+), (\d+) (?:{'|'.join(TOGETHER.values())})")
# KB/s by way, by model and window, by lanes or windows together.
Lines = Mapping[str, Mapping[str, Mapping[int, float]]]


def lines_of(figures: Iterable[Figure]) -> Lines:
    """The speeds among some figures; of a case that is there twice the later one."""
    lines: dict[str, dict[str, dict[int, float]]] = {way: {} for way in TOGETHER}
    for figure in figures:
        way, _, speed = figure.metric.partition(" ")
        found = _CASE.fullmatch(figure.case)
        if found and way in lines and speed == "speed":
            lines[way].setdefault(found[1], {})[int(found[2])] = figure.value
    return lines


def newest(path: Path) -> Sequence[Figure]:
    """The figures of `bench.device` in a file of results, of the machine that was the last to measure."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["bench"] == "device"]
    return [
        Figure(row["case"], row["metric"], float(row["value"]), row["unit"])
        for row in rows
        if row["device"] == rows[-1]["device"]
    ]


def draw(figures: Iterable[Figure], path: Path) -> None:
    """Draw a diagram for each way, in it a line for each model and window; a line says so where that cannot be."""
    try:
        from matplotlib import figure as drawing
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return
    picture = drawing.Figure(figsize=(12, 5), layout="constrained")
    for axes, (way, lines) in zip(picture.subplots(1, 2, sharey=True), lines_of(figures).items(), strict=True):
        axes.set(title=way, xlabel=TOGETHER[way], ylabel="KB/s", xscale="log", yscale="log")
        for name, speeds in lines.items():
            axes.plot(sorted(speeds), [speeds[n] for n in sorted(speeds)], "o-", label=name)
        numbers = sorted({n for speeds in lines.values() for n in speeds})
        axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    picture.savefig(path, dpi=120)
