"""The tables of README.md and docs/benchmarks.md, from the newest rows of `bench/results.csv`.

    python -m bench.tables [--write] [--results CSV]

Each stands between `<!-- table: NAME -->` and `<!-- end of table -->`. Without `--write` the command says which of them
differ from what the results say, and ends with status 1 where one does.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import results
from bench.results import ROOT
from llmzip.bench.corpora import known_files
from llmzip.errors import ConfigError, LlmzipError

PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
_MARKED = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
# Titles of columns, and what the cases of `bench.ratio` begin with after the file's name.
_SIZES = {
    "zstd -22": "zstd -22",
    "xz -9e": "xz -9e",
    "brotli 11": "brotli -q 11",
    "PPMd": "PPMd",
    "llmzip": "llmzip, small",
}
_TEXTS = {
    "first 1 MB of enwik8": "enwik8_1m",
    "alice29.txt": "alice29.txt",
    "lcet10.txt": "lcet10.txt",
    "xargs.1": "xargs.1",
    "a Python module, 37 KB": "structlog_dev.py",
    "plrabn12.txt": "plrabn12.txt",
    "an Apache log, 171 KB": "apache_2k.log",
    "kennedy.xls": "kennedy.xls",
}


class Figures:
    """The newest value of each case and metric.

    Args:
        rows: of a file of results, the oldest first.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        # A case that is measured again moves to the end.
        self._values: dict[tuple[str, str, str, str], float] = {}
        for row in rows:
            key = (row["bench"], row["case"], row["metric"], row["unit"])
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

    def files(self, bench: str) -> list[str]:
        """The files that a benchmark has cases of, whole ones only, in the order of the alphabet."""
        files = {case.partition(": ")[0] for of_bench, case, *_ in self._values if of_bench == bench}
        return sorted(file for file in files if "[:" not in file)


def ratios(figures: Figures) -> Iterator[str]:
    """Bits per byte of some texts, the smallest of each in bold."""
    yield from _head("text", [title if title != "llmzip" else "llmzip, bundled" for title in _SIZES])
    for title, file in _TEXTS.items():
        values = [figures.newest("ratio", f"{file}: {case}", "ratio", "bits/byte") for case in _SIZES.values()]
        shown = [f"**{value:.3f}**" if value == min(values) else f"{value:.3f}" for value in values]
        yield _line([title, *shown])


def sizes(figures: Figures) -> Iterator[str]:
    """Bytes of archives of all files that were measured."""
    yield from _head("text", ["bytes", *_SIZES])
    for file in sorted(figures.files("ratio"), key=str.lower):
        values = [figures.newest("ratio", f"{file}: {case}", "size", "bytes") for case in _SIZES.values()]
        bits = figures.newest("ratio", f"{file}: zstd -22", "ratio", "bits/byte")
        yield _line([file, *(f"{value:,.0f}" for value in (_file_size(8 * values[0] / bits), *values))])


def _file_size(estimate: float) -> int:
    """The size of a file, by its ratio's six digits: that of the nearest known file, if it is as near as they tell."""
    nearest = min((known.size for known in known_files().values()), key=lambda size: abs(size - estimate))
    return nearest if abs(nearest - estimate) < 1e-5 * estimate else round(estimate)


def program(figures: Figures) -> Iterator[str]:
    """The whole program on a megabyte, at first and later."""
    ways = [(way, unit) for unit in ("s", "KB/s") for way in ("compress", "decompress")]
    yield from _head("run", [f"{way}, {unit}" for way, unit in ways])
    for title, case in (("first", "first run"), ("later", "later runs")):
        of_case = f"bundled, enwik8_1m, 1000000 bytes: {case}"
        values = [figures.newest("program", of_case, way, unit) for way, unit in ways]
        yield _line([title, *(f"{value:.1f}" for value in values)])


TABLES: Mapping[str, Callable[[Figures], Iterator[str]]] = {"ratios": ratios, "sizes": sizes, "program": program}


def rendered(page: str, figures: Figures) -> str:
    """A page with its tables as the results say.

    Raises:
        ConfigError: it names a table that there is not, or a figure of it was never measured.
    """

    def table(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        if name not in TABLES:
            raise ConfigError(f"table: expected one of {', '.join(TABLES)}, found {name}")
        return start + "".join(f"{line}\n" for line in TABLES[name](figures)) + end

    return _MARKED.sub(table, page)


def main(arguments: Sequence[str] | None = None, pages: Sequence[Path] = PAGES) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    differs = False
    for path in pages:
        page = path.read_text(encoding="utf-8")
        try:
            new = rendered(page, Figures.read(chosen.results))
        except LlmzipError as error:
            print(f"tables: {path.name}: {error}", file=sys.stderr)
            return 1
        if new == page:
            continue
        if chosen.write:
            path.write_text(new, encoding="utf-8")
        else:
            print(
                f"{path.name}: its tables are not those of {chosen.results.name}; run: python -m bench.tables --write"
            )
            differs = True
    return int(differs)


def _head(first: str, titles: Sequence[str]) -> Iterator[str]:
    yield _line([first, *titles])
    yield _line(["---", *["---:"] * len(titles)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description="Tables of the results.")
    parser.add_argument("--write", action="store_true", help="put them into the pages")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where the rows are")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
