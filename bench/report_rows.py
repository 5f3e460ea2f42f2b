"""A run of `bench.report` as its rows in a file of results say it, and nothing that they do not say.

The row `run` begins it. Each part has a row with its command and its seconds, and one more where it failed; what the
part measured are the rows with this command that were appended since the run began, whoever else appends to the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.results import Figure
from bench.timing import Spread
from llmzip.errors import ConfigError

BENCH = "report"
_START, _PARTS = "run", "parts"
_TIME, _FAILED = "time", "failed"


@dataclass(frozen=True)
class Row:
    """A row of results.

    Attributes:
        bench, case, metric, unit: what was measured.
        value: of it; the median where it was timed.
        spread: over its repetitions, where it was timed.
        facts: all its columns.
    """

    bench: str
    case: str
    metric: str
    unit: str
    value: float
    spread: Spread | None
    facts: Mapping[str, str]

    @classmethod
    def of(cls, facts: Mapping[str, str]) -> Row:
        """The row of a line of the file."""
        spread = None
        if facts["repeats"]:
            spread = Spread(int(facts["repeats"]), *(float(facts[name]) for name in ("p20", "p50", "p80")))
        names = (facts["bench"], facts["case"], facts["metric"], facts["unit"])
        return cls(*names, float(facts["value"]), spread, facts)

    @property
    def is_problem(self) -> bool:
        """Whether it says why something was not measured."""
        return self.unit == "exit status"


@dataclass
class Part:
    """One command of a run.

    Attributes:
        name: what it measures, in a few words.
        command: as it can be typed again.
        seconds: that it took.
        failure: why it failed; empty where it did not.
        rows: what it measured.
    """

    name: str
    command: str
    seconds: float
    failure: str = ""
    rows: list[Row] = field(default_factory=list)


@dataclass
class Run:
    """A whole run.

    Attributes:
        start: its first row, with date, commit, device, versions and command.
        parts: in order.
    """

    start: Row
    parts: list[Part]

    @property
    def rows(self) -> list[Row]:
        """What all parts measured."""
        return [row for part in self.parts for row in part.rows]

    def of(self, bench: str) -> list[Part]:
        """The parts that have rows of one benchmark."""
        return [part for part in self.parts if any(row.bench == bench for row in part.rows)]


def start_figure(n_parts: int) -> Figure:
    """The row that begins a run."""
    return Figure(_START, _PARTS, n_parts, "")


def part_figures(part: Part, exit_status: int) -> Iterator[Figure]:
    """The rows that end a part."""
    yield Figure(f"{part.name}: {part.command}", _TIME, part.seconds, "s")
    if part.failure:
        yield Figure(f"{part.name}: {part.failure}", _FAILED, exit_status, "exit status")


def read_runs(path: Path) -> list[Run]:
    """All runs of a file, the oldest first.

    Raises:
        ConfigError: there is none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [Row.of(facts) for facts in csv.DictReader(file)]
    starts = [i for i, row in enumerate(rows) if row.bench == BENCH and row.metric == _PARTS]
    if not starts:
        raise ConfigError(f"{path}: expected a run of bench.report, found none")
    return [_run(rows[start:end]) for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def _run(rows: Sequence[Row]) -> Run:
    run = Run(rows[0], [])
    for row in rows:
        name, _, told = row.case.partition(": ")
        if row.bench == BENCH and row.metric == _TIME:
            run.parts.append(Part(name, told, row.value))
        elif row.bench == BENCH and row.metric == _FAILED:
            run.parts[-1].failure = told
    commands = {part.command: part for part in run.parts}
    for row in rows:
        if row.bench != BENCH and (part := commands.get(row.facts["command"])):
            part.rows.append(row)
    return run
