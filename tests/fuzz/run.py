"""Fuzzes the readers with atheris: `python tests/fuzz/run.py [TARGET ...] [--seconds 60]`, by default all targets.

It needs `pip install -e '.[fuzz]'`. What a fault was found with goes to `faults`, from where a test reads it ever
after; what was learnt on the way goes to `corpus`, which is begun with the next time.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from targets import TARGETS

FOLDER = Path(__file__).parent
FAULTS = FOLDER / "faults"
SEEDS = [FOLDER.parent / "attacks" / "files", FOLDER.parent / "vectors" / "v1"]
_HEADER_SIZE = 16
_WITH_HEADER = ("archive", "header")
_RUNS = re.compile(r"number_of_executed_units: (\d+)")


def seed(target: str, corpus: Path) -> None:
    """Put archives, or what stands behind their headers, among the inputs."""
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in SEEDS:
        for path in folder.glob("*.llmz"):
            data = path.read_bytes()
            (corpus / path.stem).write_bytes(data if target in _WITH_HEADER else data[_HEADER_SIZE:])


def fuzz(target: str, corpus: Path, seconds: int) -> tuple[bool, str]:
    """Whether a target has no fault, and what is to be said of it."""
    seed(target, corpus)
    FAULTS.mkdir(exist_ok=True)
    command = [sys.executable, str(FOLDER / "one.py"), target, str(corpus), str(FAULTS), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        runs = _RUNS.search(done.stderr)
        return True, f"{target}: no fault in {int(runs[1]) if runs else 0:,} runs"
    return False, f"{target}: FAULT\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def main() -> int:
    """Run the targets, each in a process of its own; 1 if one of them had a fault."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/run.py", description="Fuzz the readers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default: 60")
    parser.add_argument("--corpus", type=Path, default=FOLDER / "corpus", help="where inputs are kept")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"expected targets of {', '.join(TARGETS)}, found {', '.join(sorted(unknown))}")
    status = 0
    for target in chosen.targets or TARGETS:
        good, text = fuzz(target, chosen.corpus / target, chosen.seconds)
        print(text, flush=True)
        status |= not good
    return status


if __name__ == "__main__":
    sys.exit(main())
