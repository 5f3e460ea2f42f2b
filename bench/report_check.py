"""Two runs of `bench.report` against each other: sizes must be equal, ratios of speed within their spread.

    python -m bench.report_check [CSV] [OTHER] [--slack 0.1]

One file: its last two runs. Two files: the last run of each. A ratio is that of a timed case to the slowest one of its
file or text; it agrees where the ranges that p20 and p80 of both cases leave it, wider by the slack, overlap. What
differs is printed; the command ends with status 1 where a size does, or where one run has what the other has not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import results
from bench.report_rows import Row, Run, read_runs
from bench.timing import Spread
from llmzip.errors import ConfigError, LlmzipError

# Figures that exact integers decide; the rest of the rows are times, memory, and what is computed of them.
_EXACT = frozenset({"input", "size", "ratio", "ratio with the model", "break-even", "payload"})
_SLACK = 0.1

Key = tuple[str, str, str, str]


class Range(NamedTuple):
    """Between which values a ratio of speed lies."""

    low: float
    high: float

    def overlaps(self, other: Range, slack: float) -> bool:
        """Whether both have a value in common, each wider by a share of it."""
        return self.low <= other.high * (1 + slack) and other.low <= self.high * (1 + slack)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    try:
        old, new = _two_runs(chosen.files)
    except (OSError, LlmzipError) as error:
        print(f"report_check: {error}", file=sys.stderr)
        return 1
    print(f"{old.start.facts['date']} at {old.start.facts['commit']}, {old.start.facts['device']}")
    print(f"{new.start.facts['date']} at {new.start.facts['commit']}, {new.start.facts['device']}\n")
    wrong = list(size_differences(old, new))
    sizes = len(_exact(old))
    print(*wrong, f"{sizes} sizes, {len(wrong)} of them differ or are missing", "", sep="\n")
    speeds, agreed = list(speed_differences(old, new, chosen.slack)), len(_ratios(old))
    print(*speeds, f"{agreed} ratios of speed, {len(speeds)} of them beyond their spread", sep="\n")
    return int(bool(wrong))


def size_differences(old: Run, new: Run) -> Iterator[str]:
    """A line for each figure of size, and each thing not measured, that is another one or in one run alone."""
    olds, news = _exact(old), _exact(new)
    for key in dict.fromkeys([*olds, *news]):
        if olds.get(key) != news.get(key):
            bench, case, metric, unit = key
            yield f"{bench}: {case}: {metric}: {_shown(olds.get(key), unit)}, then {_shown(news.get(key), unit)}"


def speed_differences(old: Run, new: Run, slack: float) -> Iterator[str]:
    """A line for each ratio of speed whose ranges have nothing in common."""
    olds, news = _ratios(old), _ratios(new)
    for key, before in olds.items():
        after = news.get(key)
        if after is not None and not before.overlaps(after, slack):
            told = f"{before.low:.3g} to {before.high:.3g}, then {after.low:.3g} to {after.high:.3g}"
            yield f"{': '.join(key[:3])}, times the slowest: {told}"


def _two_runs(files: Sequence[Path]) -> tuple[Run, Run]:
    if len(files) > 1:
        return read_runs(files[0])[-1], read_runs(files[1])[-1]
    runs = read_runs(files[0])
    if len(runs) < 2:
        raise ConfigError(f"{files[0]}: expected two runs of bench.report, found {len(runs)}")
    return runs[-2], runs[-1]


def _exact(run: Run) -> Mapping[Key, float]:
    """All figures of size, and what was not measured by the status it means."""
    rows = (row for row in run.rows if row.metric in _EXACT or row.is_problem)
    return {(row.bench, row.case, row.metric, row.unit): row.value for row in rows}


def _ratios(run: Run) -> Mapping[Key, Range]:
    """Each timed case's speed by that of the slowest case of its group, whose time is the least noisy."""
    groups: dict[tuple[str, str, str], list[tuple[Key, Spread]]] = {}
    for row in run.rows:
        if row.spread is not None and row.spread.repeats > 1:
            group = (row.bench, row.case.partition(": ")[0], row.unit)
            groups.setdefault(group, []).append(((row.bench, row.case, row.metric, row.unit), _speed(row)))
    found: dict[Key, Range] = {}
    for cases in groups.values():
        key, slowest = min(cases, key=lambda case: case[1].p50)
        ranges = {other: Range(speed.p20 / slowest.p80, speed.p80 / slowest.p20) for other, speed in cases}
        del ranges[key]
        found |= ranges
    return found


def _speed(row: Row) -> Spread:
    """A case's spread as speeds: of a time what it is the inverse of."""
    assert row.spread is not None
    if row.unit.endswith("/s"):
        return row.spread
    return Spread(row.spread.repeats, 1 / row.spread.p80, 1 / row.spread.p50, 1 / row.spread.p20)


def _shown(value: float | None, unit: str) -> str:
    return "nothing" if value is None else f"{value:,.10g} {unit}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.report_check", description="Hold two reports together.")
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="CSV", help="one or two files of results; default: bench/results.csv")
    add("--slack", type=float, default=_SLACK, metavar="SHARE", help=f"that ranges are wider by; default: {_SLACK}")
    chosen = parser.parse_args(arguments)
    chosen.files = chosen.files or [results.RESULTS]
    if len(chosen.files) > 2:
        parser.error(f"expected one or two files, found {len(chosen.files)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
