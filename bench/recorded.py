"""What was recorded last: the newest figure of each case in a file of results, for tables and pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llmzip.errors import ConfigError

# Options under which a benchmark measures something else of the same cases: such rows stand under its name and option.
_OPTIONS = ("--tune", "--tune-chunks", "--data", "--policy", "-D", "--first", "--chunk-size")


class Figures:
    """The newest value of each case and metric.

    Args:
        rows: of a file of results, the oldest first.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        # A case that is measured again moves to the end.
        self._values: dict[tuple[str, str, str, str], float] = {}
        for row in rows:
            key = (_bench(row), row["case"], _metric(row), row["unit"])
            self._values.pop(key, None)
            self._values[key] = float(row["value"])

    @classmethod
    def read(cls, path: Path) -> Figures:
        """Those of a file."""
        with path.open(newline="", encoding="utf-8") as file:
            return cls(csv.DictReader(file))

    def newest(self, bench: str, case: str, metric: str, unit: str) -> float:
        """The value that was measured last, of a case of these words and perhaps others after them.

        Raises:
            ConfigError: there is none.
        """
        found = [
            value
            for (of_bench, of_case, *of_metric), value in self._values.items()
            if (of_bench, *of_metric) == (bench, metric, unit) and f"{of_case} ".startswith(f"{case} ")
        ]
        if not found:
            raise ConfigError(f"results of {bench}: expected {metric} in {unit} of {case}, found none")
        return found[-1]

    def cases(self, bench: str) -> list[str]:
        """The cases of a benchmark, each once, the one that was measured last at the end."""
        return list(dict.fromkeys(case for of_bench, case, *_ in self._values if of_bench == bench))

    def files(self, bench: str) -> list[str]:
        """The files that a benchmark has cases of, whole ones only, in the order of the alphabet."""
        files = {case.partition(": ")[0] for of_bench, case, *_ in self._values if of_bench == bench}
        return sorted(file for file in files if "[:" not in file)


def _bench(row: Mapping[str, str]) -> str:
    """The benchmark, with the options that make it another one."""
    words = row.get("command", "").split() if row["bench"] == "conditioner_gain" else []
    return " ".join([row["bench"], *(option for option in _OPTIONS if option in words)])


def _metric(row: Mapping[str, str]) -> str:
    """The figure's name; `tradeoff` called its payloads ratios at first."""
    return "payload" if (row["bench"], row["metric"]) == ("tradeoff", "ratio") else row["metric"]


def head(first: str, titles: Sequence[str]) -> Iterator[str]:
    """The first two lines of a table, whose first column holds words."""
    yield line([first, *titles])
    yield line(["---", *["---:"] * len(titles)])


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"
