"""The tables of README.md and docs/benchmarks.md, from the newest rows of `bench/results.csv`.

    python -m bench.tables [--write] [--results CSV]

Each stands between `<!-- table: NAME -->` and `<!-- end of table -->`. Without `--write` the command says which of them
differ from what the results say, and ends with status 1 where one does.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import conditioner_tables, model_tables, results
from bench.recorded import Figures
from bench.results import ROOT
from llmzip.errors import ConfigError, LlmzipError

PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
_MARKED = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
TABLES: Mapping[str, Callable[[Figures], Iterator[str]]] = {
    "ratios": model_tables.ratios,
    "sizes": model_tables.sizes,
    "program": model_tables.program,
    "tradeoff": model_tables.tradeoff,
    "shapes": model_tables.shapes,
    "pruned cache": model_tables.pruned_cache,
    "memory": model_tables.memory,
    "conditioner gain": conditioner_tables.conditioner_gain,
    "tuned vectors": conditioner_tables.tuned_vectors,
    "chunk vectors": conditioner_tables.chunk_vectors,
    "steering": conditioner_tables.steering,
    "hyperpriors": conditioner_tables.hyperpriors,
}


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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description="Tables of the results.")
    parser.add_argument("--write", action="store_true", help="put them into the pages")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where the rows are")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
