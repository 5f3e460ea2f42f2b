"""A report as one Markdown page with its pictures, all of it from the rows of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import growth_picture, scatter
from bench.growth import WAYS
from bench.report_rows import Part, Row, Run
from bench.report_tables import (
    Compared,
    fits_table,
    growth_points,
    growth_table,
    parts_table,
    problems_table,
    published_table,
    ratios_table,
    speeds_table,
    yardstick_table,
)
from bench.scatter import Place
from llmzip.bench.records import HOW

PAGE, SPEED_PICTURE, GROWTH_PICTURE = "README.md", "speed.png", "growth.png"


class Point(NamedTuple):
    """A place of the growth picture, from its rows."""

    rows: Mapping[str, Row]

    def time(self, way: str) -> float:
        """The median's seconds."""
        return self.rows[way].value

    def memory(self, way: str) -> float:
        """The most megabytes."""
        return self.rows[f"{way}: memory"].value


def write(run: Run, folder: Path) -> None:
    """Write the page and its pictures into a folder, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if compared := run.of("compare"):
        _draw_speeds(compared[0], folder / SPEED_PICTURE)
    if points := growth_points(_rows(run.of("growth"))):
        growth_picture.draw({place: Point(rows) for place, rows in points.items()}, WAYS, folder / GROWTH_PICTURE)
    (folder / PAGE).write_text("\n".join([*_sections(run), ""]), encoding="utf-8")


def _draw_speeds(part: Part, path: Path) -> None:
    """Bits per byte of all files together against their speeds, of contenders that came through on all."""
    found = Compared(part)
    n_raw = sum(found.files.values())
    panels: dict[str, dict[str, Place]] = {"encode, KB/s": {}, "decode, KB/s": {}}
    for contender in found.contenders:
        ratios = [(n, found.ratio(file, contender)) for file, n in found.files.items()]
        bits = [n * ratio for n, ratio in ratios if ratio is not None]
        for way, points in zip(("encode", "decode"), panels.values(), strict=True):
            speed = found.speed(contender, way, list(found.files))
            if len(bits) == len(ratios) and speed is not None:
                points[contender] = Place(speed.p50, sum(bits) / n_raw)
    scatter.draw(panels, f"{len(found.files)} files together, {n_raw:,} bytes", path, log=True)


def _rows(parts: Sequence[Part]) -> list[Row]:
    return [row for part in parts for row in part.rows]


def _sections(run: Run) -> Iterator[str]:
    yield from _head(run)
    yield from ("", "## What ran", "", *parts_table(run))
    yield from ("", "## What was not measured", "", *_problems(run))
    for part in run.of("compare"):
        yield from _compared(part, with_picture=part is run.of("compare")[0])
    if published := run.of("published_runs"):
        yield from ("", "## Published tables, side by side", "", _PUBLISHED, "", *published_table(published))
    if yardsticks := run.of("naive"):
        yield from ("", "## A naive coder as the yardstick", "", _YARDSTICK, "", *yardstick_table(yardsticks))
    if growth := _rows(run.of("growth")):
        yield from ("", "## Growth", "", _GROWTH, "", *growth_table(growth))
        yield from ("", *fits_table(growth))
        yield from ("", f"![seconds and megabytes along each axis]({GROWTH_PICTURE})")


def _head(run: Run) -> Iterator[str]:
    facts = run.start.facts
    seconds = sum(part.seconds for part in run.parts)
    yield from ("# The report of a machine", "")
    yield f"Made by one command, and by nothing else, of the rows that it appended to the results: `{facts['command']}`"
    yield from ("", "| | |", "| --- | --- |")
    yield f"| date | {facts['date']} |"
    yield f"| commit | {facts['commit']} |"
    yield f"| device | {facts['device']} |"
    yield f"| versions | {facts['versions']} |"
    yield f"| took | {seconds / 60:.1f} minutes |"
    yield ""
    yield (
        "Timed figures are medians; below p20 and p80 lie 20 and 80 of a hundred repetitions. A second run has the "
        "same sizes, to the byte; `python -m bench.report_check` holds two runs against each other."
    )


def _problems(run: Run) -> list[str]:
    lines = list(problems_table(run))
    return lines if len(lines) > 2 else ["Nothing: every part, opponent and file came through."]


def _compared(part: Part, *, with_picture: bool) -> Iterator[str]:
    found = Compared(part)
    yield from ("", f"## Sizes and speeds: {part.name}", "")
    if with_picture:
        yield from (HOW, "")
    if not found.files:
        yield "No file came through."
        return
    yield from ("Bits per byte, the model not counted:", "", *ratios_table(found))
    yield from ("", "Speed over these files:", "", *speeds_table(found))
    if with_picture:
        yield from ("", f"![bits per byte against speed, both ways]({SPEED_PICTURE})")


_PUBLISHED = (
    "The published runs above, ours below; payloads only, in both. Seconds of the published runs are of their authors' "
    "machine, ours of this one: one run each."
)
_YARDSTICK = (
    "A language model compresses in the fewest lines of code by one whole forward pass a token, in float, both ways: "
    "so did the published works. That is timed here with the weights of the artefact, beside llmzip on the same tokens "
    "in the same windows, on the same cores. `At least` and `at most` are by the quantiles of both."
)
_GROWTH = (
    "The whole program in fresh processes, its start included. One axis moves, the others are as the program chooses "
    "them. Below are straight lines by least squares, where an axis has three points: seconds or megabytes at 0, and "
    "for each byte, lane, token or worker."
)
