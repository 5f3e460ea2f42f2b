"""Worker processes: the whole program with none, one, two.

    python -m bench.workers --text FILE [--bytes N] [--model bundled] [--workers 0,1,2] [--repeats 3]

Every archive must have the bytes of the first one, and is decoded and compared; otherwise nothing is printed and the
command ends with status 1. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import numbers, positive, read_text
from bench.contenders import BUNDLED
from bench.program import Program
from bench.results import Figure
from bench.timing import Spread, interleave
from llmzip.errors import ExactnessError

HEADER = ("| workers | compress, KB/s | decompress, KB/s |", "| ---: | ---: | ---: |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("workers", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    raw = read_text(chosen.text, chosen.bytes)
    with tempfile.TemporaryDirectory() as folder:
        programs = {n: _program(n, raw, chosen.model, Path(folder)) for n in chosen.workers}
        ways: dict[str, Callable[[], None]] = {}
        for n, program in programs.items():
            ways |= {f"{n} compress": program.compress, f"{n} decompress": program.decompress}
        for run in ways.values():
            run()  # compiles
        measured = interleave(ways, chosen.repeats)
        archives = {program.archive for program in programs.values()}
    if len(archives) != 1:
        raise ExactnessError(f"expected one archive whatever the workers, found {len(archives)}")
    print(f"{chosen.model}, {chosen.text.name}: {len(raw):,} bytes; {results.device()}; medians of {chosen.repeats}\n")
    print(*HEADER, sep="\n")
    for n in programs:
        speeds = {
            way: Spread.of(len(raw) / 1000 / s for s in measured[f"{n} {way}"]) for way in ("compress", "decompress")
        }
        print(f"| {n} | " + " | ".join(f"{speed.p50:.1f}" for speed in speeds.values()) + " |")
        for way, speed in speeds.items():
            case = f"{chosen.model}, {chosen.text.name}, {len(raw)} bytes: {n} workers"
            yield Figure(case, way, speed.p50, "KB/s", speed)


def _program(n_workers: int, raw: bytes, model: str, folder: Path) -> Program:
    own = folder / str(n_workers)
    own.mkdir()
    return Program(raw, model, own, ["--workers", str(n_workers)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description="Time worker processes.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what is compressed")
    add("--bytes", type=positive, default=None, metavar="N", help="of it; default: all")
    add("--model", default=BUNDLED, help="name of a stored model")
    add("--workers", type=numbers, default=[0, 1, 2], metavar="N,N", help="processes; default: 0,1,2")
    add("--repeats", type=positive, default=3, metavar="N", help="runs of each; default: 3")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
