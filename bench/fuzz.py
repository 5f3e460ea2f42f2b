"""Fuzzing by coverage: `python -m bench.fuzz [TARGET ...] [--seconds 60]`, by default all targets of tests/fuzz.

It needs `pip install -e '.[fuzz]'`. What makes a fault is kept in `tests/fuzz/faults`, from where a test reads it ever
after; nothing is recorded then, and the command ends with status 1. What was learnt on the way is kept in
`tests/fuzz/corpus`, with which the next run begins. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import positive
from bench.results import ROOT, Figure
from llmzip.errors import ConfigError, ExactnessError

FOLDER = ROOT / "tests" / "fuzz"
SEEDS = [ROOT / "tests" / "attacks" / "files", ROOT / "tests" / "vectors" / "v1"]
_HEADER_SIZE = 16
_WITH_HEADER = ("archive", "header")
_RUNS = re.compile(r"number_of_executed_units: (\d+)")


def targets() -> list[str]:
    """The names of all targets."""
    return list(runpy.run_path(str(FOLDER / "targets.py"))["TARGETS"])


def seed(target: str, corpus: Path) -> None:
    """Put archives, or what stands behind their headers, among the inputs."""
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in SEEDS:
        for path in folder.glob("*.llmz"):
            data = path.read_bytes()
            (corpus / path.stem).write_bytes(data if target in _WITH_HEADER else data[_HEADER_SIZE:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("fuzz", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    known = targets()
    if unknown := set(chosen.targets) - set(known):
        raise ConfigError(f"expected targets of {', '.join(known)}, found {', '.join(sorted(unknown))}")
    print("| target | runs without a fault |", "| --- | ---: |", sep="\n")
    for target in chosen.targets or known:
        n_runs = _fuzz(target, chosen.corpus / target, chosen.seconds)
        print(f"| {target} | {n_runs:,} |", flush=True)
        yield Figure(f"{target}, {chosen.seconds} s", "runs", n_runs, "")


def _fuzz(target: str, corpus: Path, seconds: int) -> int:
    """How often a target ran, in a process of its own."""
    seed(target, corpus)
    faults = FOLDER / "faults"
    faults.mkdir(exist_ok=True)
    command = [sys.executable, str(FOLDER / "one.py"), target, str(corpus), str(faults), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = _RUNS.search(done.stderr)
    if done.returncode or runs is None:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", file=sys.stderr)
        raise ExactnessError(f"{target}: expected no fault, found what is told above; its input is in {faults}")
    return int(runs[1])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description="Fuzz the readers.")
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="default: all")
    add("--seconds", type=positive, default=60, metavar="S", help="for each target; default: 60")
    add("--corpus", type=Path, default=FOLDER / "corpus", metavar="FOLDER", help="where inputs are kept")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
