"""`llmzip bench`, recorded: files through llmzip and its opponents, each run a fresh process, decoded and compared.

    python -m bench.compare PATHS... [--models bundled,smollm2-135m] [--against default] [--limit BYTES] [--repeats N]
                            [--device auto] [--threads N] [--html PAGE]

A folder stands for the files in it. Prints the tables of `llmzip bench` and appends what is in them. What fails, and an
opponent that is not installed, is a row too, with its reason and without figures. A failure ends the command with
status 1; an opponent that is not installed is none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import results
from bench.arguments import positive
from bench.contenders import BUNDLED
from bench.results import Figure
from llmzip.bench import session
from llmzip.bench.columns import problem_text
from llmzip.bench.contenders import Reference, against, contender_of, default_opponents
from llmzip.bench.machine import n_cores
from llmzip.bench.page import as_html
from llmzip.bench.rows import Row, Status, Way
from llmzip.bench.session import Plan
from llmzip.bench.table import file_lines
from llmzip.errors import LlmzipError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    try:
        references = _references(chosen)
    except LlmzipError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    plan = Plan(list(_files(chosen.paths)), frozenset(), references, chosen.limit, chosen.repeats)
    found = []
    for text, rows in session.rows_of(plan, lambda _: None):
        lines = file_lines(text, rows) if text else [f"{row.file}: {problem_text(row)}" for row in rows]
        print(*lines, "", sep="\n", flush=True)
        results.append("compare", (figure for row in rows for figure in figures(row)), chosen.results)
        found.append((text, rows))
    print(f"{results.device()}; decoded and compared; medians of {chosen.repeats}")
    if chosen.html is not None:
        run = replace(session.run_of(plan, found), command=results.command())
        chosen.html.write_text(as_html(run), encoding="utf-8")
    return int(any(row.exit_code for _, rows in found for row in rows))


def _files(paths: Iterable[Path]) -> Iterator[str]:
    """The paths, with the files of a folder for it; one that has none stays, to be a row."""
    for path in paths:
        inside = sorted(str(file) for file in path.iterdir() if file.is_file()) if path.is_dir() else []
        yield from inside or [str(path)]


def figures(row: Row) -> Iterator[Figure]:
    """Rows for `bench/results.csv`; of what failed one that says why, its value the exit status that it means."""
    case = f"{row.file}: {row.contender}"
    if row.status is not Status.OK:
        yield Figure(f"{case}: {row.reason}", row.status, row.exit_code, "exit status")
        return
    yield Figure(case, "input", row.n_raw, "bytes")
    yield Figure(case, "size", row.n_packed, "bytes")
    yield Figure(case, "ratio", row.bits_per_byte, "bits/byte")
    if row.has_model:
        yield Figure(case, "ratio with the model", row.bits_per_byte_with_model, "bits/byte")
    if row.break_even is not None:
        yield Figure(f"{case} against {row.best_opponent}", "break-even", row.break_even, "bytes")
    for metric, way in (("encode", row.encode), ("decode", row.decode)):
        assert way is not None
        yield from _way_figures(case, metric, way)


def _way_figures(case: str, metric: str, way: Way) -> Iterator[Figure]:
    yield Figure(case, metric, way.speed.p50, "KB/s", way.speed)
    if way.peak_bytes is not None:
        yield Figure(f"{case}: {metric}", "memory", way.peak_bytes / 1e6, "MB")
    if way.gpu_peak_bytes is not None:
        yield Figure(f"{case}: {metric}", "memory of the GPU", way.gpu_peak_bytes / 1e6, "MB")


def _references(chosen: argparse.Namespace) -> list[Reference]:
    own = session.models([name for name in chosen.models.split(",") if name], chosen.threads, chosen.device)
    for reference in own:
        contender_of(reference)
    found: list[Reference] = []
    for name in chosen.against:
        found += default_opponents() if name == "default" else [] if name == "none" else [against(name)]
    return [*found, *own]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Record what llmzip bench measures.")
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="files to compress, and folders of them")
    add("--models", default=BUNDLED, help="names, ids or paths, with commas between; default: bundled")
    add("--against", action="append", metavar="NAME", help="as llmzip bench has it; default: default")
    add("--limit", type=positive, metavar="BYTES", help="only the first bytes of each file")
    add("--repeats", type=positive, default=3, metavar="N", help="of everything; default: 3")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what computes; default: auto")
    add("--threads", type=positive, default=n_cores(), metavar="N", help="of llmzip; default: one a core")
    add("--html", type=Path, metavar="PAGE", help="where to write the page of llmzip bench")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    chosen = parser.parse_args(arguments)
    chosen.against = chosen.against or ["default"]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
