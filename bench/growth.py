"""How time and memory grow: with the size of the input, with chunks, lanes, windows and workers.

    python -m bench.growth --text FILE [--model bundled] [--bytes 1000000] [--sizes N,N] [--chunks N,N] [--lanes N,N]
                           [--windows N,N] [--workers N,N] [--repeats 3] [--picture PNG]

The whole program, in fresh processes. One axis moves, the others are as the program chooses them; an axis without
values (`--lanes=`) is left out. Every archive is decoded and compared; docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import results
from bench.arguments import numbers, positive, positives, read_text
from bench.contenders import BUNDLED
from bench.growth_picture import draw
from bench.results import Figure
from bench.timing import Spread, seconds_of
from llmzip.bench.measure import watch
from llmzip.errors import ConfigError, ExactnessError

WAYS = ("compress", "decompress")
# What moves along an axis, and the option that says so; None where it is the input itself.
OPTIONS = {
    "size": None,
    "chunk size": "--chunk-size",
    "lanes": "--lanes",
    "window": "--window",
    "workers": "--workers",
}
HEADER = (
    "| axis | value | compress, s | decompress, s | compress, MB | decompress, MB |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


class Point(NamedTuple):
    """One place on one axis."""

    axis: str
    value: int


class Fit(NamedTuple):
    """A straight line through points, by least squares.

    Attributes:
        slope, intercept: of the line.
        determination: the share of the variance that it explains; 1 where there is none.
    """

    slope: float
    intercept: float
    determination: float

    @classmethod
    def through(cls, xs: Sequence[float], ys: Sequence[float]) -> Fit:
        """The line through at least two points of different xs.

        >>> Fit.through([1, 2, 4], [5, 7, 11])
        Fit(slope=2.0, intercept=3.0, determination=1.0)
        """
        slope, intercept = statistics.linear_regression(xs, ys)
        mean = statistics.fmean(ys)
        total = sum((y - mean) ** 2 for y in ys)
        rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
        return cls(slope, intercept, 1 - rest / total if total else 1.0)


class Series:
    """The repetitions of one point: seconds and megabytes, both ways."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        self.megabytes: dict[str, list[float]] = {way: [] for way in WAYS}

    def time(self, way: str) -> float:
        """The median."""
        return statistics.median(self.seconds[way])

    def memory(self, way: str) -> float:
        """The most of all."""
        return max(self.megabytes[way])


class Runner:
    """Runs the program on the beginning of a text.

    Args:
        text: all of it that any point needs.
        model: its name, or `bundled`.
        n_bytes: of the text, where the size does not move.
        folder: an empty one.
    """

    def __init__(self, text: bytes, model: str, n_bytes: int, folder: Path) -> None:
        self._text, self._n_bytes, self._folder = text, n_bytes, folder
        self._model = [] if model == BUNDLED else ["--model", model]

    def run(self, point: Point, series: Series) -> None:
        """Compress and decompress once.

        Raises:
            ExactnessError: other bytes came back, or the program failed.
        """
        raw = self._text[: point.value if point.axis == "size" else self._n_bytes]
        text, archive, restored = (self._folder / name for name in ("text", "archive", "restored"))
        text.write_bytes(raw)
        option = OPTIONS[point.axis]
        moved = [] if option is None else [option, str(point.value)]
        self._measure("compress", [text, archive], moved, series)
        # The archive itself says its chunks and windows.
        kept = moved if option in ("--lanes", "--workers") else []
        self._measure("decompress", [archive, restored], kept, series)
        if restored.read_bytes() != raw:
            raise ExactnessError(f"{point.axis} {point.value}: expected the {len(raw)} bytes back, found others")

    def _measure(self, way: str, paths: Sequence[Path], options: Sequence[str], series: Series) -> None:
        command = [sys.executable, "-m", "llmzip", way, "--quiet", "--force", *self._model, *options]
        peak = 0

        def run() -> None:
            nonlocal peak
            process = subprocess.Popen([*command, *map(str, paths)], stderr=subprocess.PIPE)
            peak = watch(process, in_process=True)
            assert process.stderr is not None
            with process.stderr:
                told = process.stderr.read().decode().strip()
            if process.returncode:
                raise ExactnessError(f"{way}: expected exit status 0, found {process.returncode}: {told}")

        series.seconds[way].append(seconds_of(run))
        series.megabytes[way].append(peak / 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("growth", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    points = list(points_of(chosen))
    if not points:
        raise ConfigError("growth: expected a value of some axis, found none")
    text = read_text(chosen.text, max([chosen.bytes, *chosen.sizes]))
    found = {point: Series() for point in points}
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(text, chosen.model, chosen.bytes, Path(folder))
        runner.run(points[0], Series())  # compiles
        for _ in range(chosen.repeats):
            for point, series in found.items():
                runner.run(point, series)
    print(
        f"{chosen.model}, {chosen.text.name}; {results.device()}; medians of {chosen.repeats}; decoded and compared\n"
    )
    print(*HEADER, *(_row(point, series) for point, series in found.items()), sep="\n")
    fits = dict(fits_of(found))
    print(
        *(
            f"\n{name}: {fit.intercept:.3g} + {fit.slope:.3g} x, R² {fit.determination:.3f}"
            for name, fit in fits.items()
        )
    )
    if chosen.picture is not None:
        draw({(point.axis, point.value): series for point, series in found.items()}, WAYS, chosen.picture)
    prefix = f"{chosen.model}, {chosen.text.name}, {chosen.bytes} bytes"
    return [*_figures(prefix, found), *_fit_figures(prefix, fits)]


def points_of(chosen: argparse.Namespace) -> Iterator[Point]:
    """All points, axis by axis."""
    axes = (chosen.sizes, chosen.chunks, chosen.lanes, chosen.windows, chosen.workers)
    for axis, values in zip(OPTIONS, axes, strict=True):
        yield from (Point(axis, value) for value in values)


def fits_of(found: Mapping[Point, Series]) -> Iterator[tuple[str, Fit]]:
    """Seconds and memory against the values of each axis that has three of them; through two any line goes."""
    for axis in OPTIONS:
        points = [point for point in found if point.axis == axis]
        xs = [float(point.value) for point in points]
        if len(set(xs)) < 3:
            continue
        for way in WAYS:
            yield f"{axis}: {way}, s", Fit.through(xs, [found[point].time(way) for point in points])
            yield f"{axis}: {way}, MB", Fit.through(xs, [found[point].memory(way) for point in points])


def _row(point: Point, series: Series) -> str:
    cells = [*(f"{series.time(way):.2f}" for way in WAYS), *(f"{series.memory(way):.0f}" for way in WAYS)]
    return f"| {point.axis} | {point.value:,} | {' | '.join(cells)} |"


def _figures(prefix: str, found: Mapping[Point, Series]) -> Iterator[Figure]:
    for point, series in found.items():
        case = f"{prefix}: {point.axis} {point.value}"
        for way in WAYS:
            yield Figure(case, way, series.time(way), "s", Spread.of(series.seconds[way]))
            yield Figure(f"{case}: {way}", "memory", series.memory(way), "MB")


def _fit_figures(prefix: str, fits: Mapping[str, Fit]) -> Iterator[Figure]:
    for name, fit in fits.items():
        for metric, value in fit._asdict().items():
            yield Figure(f"{prefix}: fit of {name}", metric, value, "")


def _axis(text: str) -> list[int]:
    """The values of an axis; none where nothing is to move along it."""
    return positives(text) if text else []


def _workers(text: str) -> list[int]:
    return numbers(text) if text else []


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure how time and memory grow.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what is compressed")
    add("--bytes", type=positive, default=1_000_000, metavar="N", help="of it, where the size does not move")
    add("--model", default=BUNDLED, help="name of a stored model")
    add("--sizes", type=_axis, default=[250_000, 500_000, 1_000_000, 2_000_000], metavar="N,N", help="in bytes")
    add("--chunks", type=_axis, default=[4096, 8192, 16384, 32768, 65536], metavar="N,N", help="sizes in bytes")
    add("--lanes", type=_axis, default=[1, 8, 64], metavar="N,N", help="chunks decoded side by side")
    add("--windows", type=_axis, default=[256, 512, 1024], metavar="N,N", help="in tokens")
    add("--workers", type=_workers, default=[0, 1, 2], metavar="N,N", help="processes")
    add("--repeats", type=positive, default=3, metavar="R", help="of everything; default: 3")
    add("--picture", type=Path, metavar="PNG", help="where to draw time and memory along each axis")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
