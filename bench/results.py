"""Where measurements go: rows appended to `bench/results.csv`, each with what is needed to repeat it.

A row is one figure of one case. Where it was timed, `repeats` says how often, and `p20`, `p50` and `p80`
how far the repetitions lie apart; `value` is then the median. Rows are appended, never changed.
"""

from __future__ import annotations

import csv
import functools
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.timing import Spread
from llmzip.bench.machine import device, n_cores, versions
from llmzip.errors import LlmzipError

__all__ = [
    "COLUMNS",
    "RESULTS",
    "ROOT",
    "Figure",
    "append",
    "command",
    "commit",
    "device",
    "n_cores",
    "record",
    "versions",
]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results.csv"
COLUMNS = (
    *("date", "commit", "bench", "case", "metric", "value", "unit"),
    *("repeats", "p20", "p50", "p80", "device", "versions", "command"),
)


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        case: what was measured, such as a file and a compressor.
        metric: which of its numbers this is.
        value: the number; of a timed figure its median.
        unit: of `value` and of the spread.
        spread: over the repetitions, where it was timed.
    """

    case: str
    metric: str
    value: float
    unit: str
    spread: Spread | None = None

    @classmethod
    def timed(cls, case: str, metric: str, seconds: Iterable[float]) -> Figure:
        """A figure of the repetitions' seconds."""
        spread = Spread.of(seconds)
        return cls(case, metric, spread.p50, "s", spread)


def append(bench: str, figures: Iterable[Figure], path: Path = RESULTS, accelerator: str = "") -> None:
    """Append a row for each figure; the first rows of a new file get the header above them.

    What was measured on an accelerator has it beside the processor.

    Raises:
        ValueError: the file is there and has other columns.
    """
    is_new = not path.exists() or path.stat().st_size == 0
    if not is_new:
        _check_header(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows(_row(bench, figure, accelerator) for figure in figures)


def record(bench: str, measure: Callable[[], Iterable[Figure]], path: Path, accelerator: str = "") -> int:
    """Measure and append: the exit status of a benchmark. An error is one line, and then nothing is appended."""
    try:
        figures = list(measure())
    except LlmzipError as error:
        print(f"{bench}: {error}", file=sys.stderr)
        return 1
    append(bench, figures, path, accelerator)
    return 0


def _check_header(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        found = tuple(next(csv.reader(file)))
    if found != COLUMNS:
        raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(found)}")


def _row(bench: str, figure: Figure, accelerator: str) -> list[object]:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    spread: list[object] = [""] * 4
    if figure.spread is not None:
        spread = [
            figure.spread.repeats,
            *(f"{x:.6g}" for x in (figure.spread.p20, figure.spread.p50, figure.spread.p80)),
        ]
    value = [figure.case, figure.metric, _number(figure.value), figure.unit]
    machine = f"{device()}; {accelerator}" if accelerator else device()
    return [date, commit(), bench, *value, *spread, machine, versions(), command()]


def _number(value: float) -> str:
    """Whole numbers in full, others with six digits."""
    return str(int(value)) if value == int(value) else f"{value:.6g}"


@functools.cache
def commit() -> str:
    """Short hash of the sources, with "+" where any file but the results differs from it."""
    short = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return f"{short}+" if changes else short


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def command() -> str:
    """The command line of this process, as it can be typed again; where rows go is no part of it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    start = ["python", "-m", module.name] if module else ["python", sys.argv[0]]
    return shlex.join([*start, *_measuring(sys.argv[1:])])


def _measuring(arguments: Sequence[str]) -> Iterator[str]:
    """Arguments without `--results` and its file."""
    left = iter(arguments)
    for argument in left:
        if argument == "--results":
            next(left, None)
        elif not argument.startswith("--results="):
            yield argument
