"""The program as users run it: fresh processes, the first ones with nothing compiled yet.

    python -m bench.program --text FILE [--bytes N] [--model bundled] [--repeats 3]

Compresses and decompresses, each at first with an empty cache of compiled code, as after installation.
Every archive is decoded and compared, and must have the bytes of the first; otherwise nothing is printed and the
command ends with status 1. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import results
from bench.arguments import positive, read_text
from bench.contenders import BUNDLED
from bench.results import Figure
from bench.timing import Spread, interleave, seconds_of
from llmzip.errors import ExactnessError

DEFAULT_BYTES = 1_000_000
HEADER = (
    "| run | compress, s | decompress, s | compress, KB/s | decompress, KB/s |",
    "| --- | ---: | ---: | ---: | ---: |",
)


class Program:
    """`llmzip` on one text, its compiled code in a folder that is empty at first.

    Args:
        raw: the text.
        model: its name, or `bundled`.
        folder: for files; an empty one.
        options: of the commands.

    Attributes:
        compiled: name of that folder.
        archive: what the first compression wrote; empty before.
    """

    def __init__(self, raw: bytes, model: str, folder: Path, options: Sequence[str] = ()) -> None:
        self._raw = raw
        self._options = [*options] if model == BUNDLED else [*options, "--model", model]
        self._text, self._archive, self._restored = (folder / name for name in ("text", "archive", "restored"))
        self._text.write_bytes(raw)
        self._folder = folder
        self.compiled = "compiled"
        self.archive = b""

    def compress(self) -> None:
        """Write the archive, the same each time."""
        self._run("compress", self._text, self._archive)
        found = self._archive.read_bytes()
        if self.archive not in (b"", found):
            raise ExactnessError(f"compress: expected the same {len(self.archive)} bytes as before, found others")
        self.archive = found

    def decompress(self) -> None:
        """Read it; its bytes must be those of the text."""
        self._run("decompress", self._archive, self._restored)
        if self._restored.read_bytes() != self._raw:
            raise ExactnessError(f"decompress: expected the {len(self._raw)} bytes of the text back, found others")

    def _run(self, command: str, source: Path, target: Path) -> None:
        arguments = [sys.executable, "-m", "llmzip", command, "--quiet", "--force", *self._options]
        paths = [str(source), str(target)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(self._folder / self.compiled)}
        done = subprocess.run([*arguments, *paths], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExactnessError(f"{command}: expected exit status 0, found {done.returncode}: {done.stderr.strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("program", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    raw = read_text(chosen.text, chosen.bytes)
    with tempfile.TemporaryDirectory() as folder:
        program = Program(raw, chosen.model, Path(folder))
        ways = {"compress": program.compress, "decompress": program.decompress}
        first = {}
        for way, run in ways.items():
            program.compiled = f"compiled by {way}"
            first[way] = [seconds_of(run)]
        # What one of them compiled, and what the other adds to it.
        program.compress()
        later = interleave(ways, chosen.repeats)
    size = len(program.archive)
    print(
        f"{chosen.model}, {chosen.text.name}: {len(raw):,} bytes to {size:,}, {8 * size / len(raw):.3f} bits per byte"
    )
    print(f"{results.device()}; medians of {chosen.repeats} later runs; decoded and compared\n")
    runs = {
        "first": list(_figures("first run", first, len(raw))),
        "later": list(_figures("later runs", later, len(raw))),
    }
    print(*HEADER, *(_row(name, figures) for name, figures in runs.items()), sep="\n")
    figures = [Figure("archive", "size", size, "bytes"), *runs["first"], *runs["later"]]
    prefix = f"{chosen.model}, {chosen.text.name}, {len(raw)} bytes"
    return [replace(figure, case=f"{prefix}: {figure.case}") for figure in figures]


def _figures(case: str, seconds: dict[str, list[float]], n_raw: int) -> Iterator[Figure]:
    """Seconds of both ways, then their speeds."""
    for way, measured in seconds.items():
        yield Figure.timed(case, way, measured)
    for way, measured in seconds.items():
        speed = Spread.of(n_raw / 1000 / s for s in measured)
        yield Figure(case, way, speed.p50, "KB/s", speed)


def _row(name: str, figures: Sequence[Figure]) -> str:
    return f"| {name} | {' | '.join(f'{figure.value:.1f}' for figure in figures)} |"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.program", description="Time the whole program.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what to compress")
    add("--bytes", type=positive, default=DEFAULT_BYTES, metavar="N", help=f"of it, at most; default: {DEFAULT_BYTES}")
    add("--model", default=BUNDLED, help="name, id or path; default: bundled")
    add("--repeats", type=positive, default=3, metavar="R", help="of the later runs; default: 3")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
