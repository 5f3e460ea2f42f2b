"""Folders to archives and back: `python -m bench.trees PATHS... [--model bundled]`.

Each path is packed by `llmzip compress`, and extracted in an empty folder by `llmzip extract`. Every name, kind, mode,
time, target and content must be as it was; otherwise nothing is recorded and the command ends with status 1.
docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import results
from bench.contenders import BUNDLED
from bench.results import Figure
from bench.timing import seconds_of
from llmzip.errors import ExactnessError

HEADER = (
    "| folder | members | bytes | archive | bits/byte | compress, s | extract, s |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)
# Made by running programs, at any moment.
_LEFT_OUT = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}


class Facts(NamedTuple):
    """What must be the same."""

    kind: int
    mode: int
    mtime_ns: int
    content: bytes


def facts_of(folder: Path) -> dict[str, Facts]:
    """Of a folder and all below it, by their paths in it."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = b""
        if kind == stat.S_IFLNK:
            content = str(path.readlink()).encode()
        elif kind == stat.S_IFREG:
            content = path.read_bytes()
        # A link's mode means nothing, and not every system sets its time.
        mode, mtime = (0, 0) if kind == stat.S_IFLNK else (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        found[str(path.relative_to(folder))] = Facts(kind, mode, mtime, content)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("trees", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    print(*HEADER, sep="\n")
    for path in chosen.paths:
        with tempfile.TemporaryDirectory() as name:
            yield from _check(path.resolve(), Path(name), chosen.model)


def _check(original: Path, folder: Path, model: str) -> Iterator[Figure]:
    """Pack a copy of a folder that nobody changes meanwhile, and extract it."""
    tree = folder / original.name
    shutil.copytree(original, tree, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    options = ["--quiet"] if model == BUNDLED else ["--quiet", "--model", model]
    packing = seconds_of(lambda: _run(["compress", str(tree), str(folder / "archive"), *options]))
    extracting = seconds_of(lambda: _run(["extract", str(folder / "archive"), "-C", str(folder / "there"), *options]))
    before, after = facts_of(tree), facts_of(folder / "there" / original.name)
    if before != after:
        wrong = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise ExactnessError(f"{original}: expected all members as they were, found others: {', '.join(wrong[:5])}")
    n_raw = sum(len(facts.content) for facts in before.values() if facts.kind == stat.S_IFREG)
    size = (folder / "archive").stat().st_size
    rate = 8 * size / max(n_raw, 1)
    print(
        f"| {original.name} | {len(before)} | {n_raw:,} | {size:,} | {rate:.3f} | {packing:.1f} | {extracting:.1f} |",
        flush=True,
    )
    case = f"{model}, {original.name}, {len(before)} members, {n_raw} bytes"
    yield Figure(case, "archive", size, "bytes")
    yield Figure(f"{case}: compress", "time", packing, "s")
    yield Figure(f"{case}: extract", "time", extracting, "s")


def _run(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "llmzip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExactnessError(f"{arguments[0]}: expected exit status 0, found {done.returncode}: {done.stderr.strip()}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.trees", description="Pack and extract folders.")
    add = parser.add_argument
    add("paths", type=Path, nargs="+", metavar="PATH", help="folders")
    add("--model", default=BUNDLED, help="name of a stored model")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
