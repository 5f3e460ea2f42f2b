"""Memory of streams: data of unknown length through `llmzip compress` and `llmzip decompress`, pipe to pipe.

    python -m bench.streams [--megabytes 10,200] [--text FILE]

The data are made here: noise, zeros, and records of numbers, which no model is asked about; with `--text` pieces of
a text too, which one codes and decodes. Each stream is decompressed and compared. docs/benchmarks.md explains the
figures.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from bench import results
from bench.arguments import positives, read_text
from bench.results import Figure
from llmzip.errors import ConfigError, ExactnessError

_PIECE = 1 << 16


class Run(NamedTuple):
    """One process: its time, and the most memory that it had."""

    seconds: float
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("streams", lambda: _measure(chosen), chosen.results)


def pieces(n_bytes: int, text: bytes = b"") -> Iterator[bytes]:
    """Data of so many bytes, the same each time; the kinds take turns, so that no part is harder than another.

    Args:
        n_bytes: how many.
        text: its parts are among the data, one after another.

    Raises:
        ConfigError: the text does not suffice.
    """
    n_text = n_bytes // 4
    if text and len(text) < n_text:
        raise ConfigError(f"text: expected at least {n_text} bytes for {n_bytes} of data, found {len(text)}")
    starts = itertools.cycle(range(0, len(text), _PIECE))
    rng = random.Random(0)
    kinds: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(_PIECE),
        lambda: bytes(_PIECE),
        lambda: b"".join((0xFE00FF00 + i * i).to_bytes(8, "big") for i in range(_PIECE // 8)),
    ]
    if text:
        kinds.append(lambda: _part(text, next(starts)))
    turns = itertools.cycle(kinds)
    while n_bytes:
        piece = next(turns)()[:n_bytes]
        n_bytes -= len(piece)
        yield piece


def _part(text: bytes, start: int) -> bytes:
    return text[start : start + _PIECE]


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    text = read_text(chosen.text) if chosen.text else b""
    print("| stream | way | s | MB of memory |", "| --- | --- | ---: | ---: |", sep="\n")
    for megabytes in chosen.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "archive"
            expected, given = hashlib.sha256(), hashlib.sha256()
            with archive.open("wb") as target:
                data = _counted(pieces(megabytes * 10**6, text), expected)
                runs = {"compress": _run("compress", data, target.write)}
            n_archive = archive.stat().st_size
            with archive.open("rb") as source:
                runs["decompress"] = _run("decompress", iter(lambda: source.read(_PIECE), b""), given.update)
            if given.digest() != expected.digest():
                raise ExactnessError(f"{megabytes} MB: expected the bytes of the stream back, found others")
        case = f"{megabytes} MB{f', {chosen.text.name}' if chosen.text else ''}"
        yield Figure(case, "size", n_archive, "bytes")
        for way, run in runs.items():
            print(f"| {case} | {way} | {run.seconds:.1f} | {run.megabytes:.0f} |", flush=True)
            yield Figure(f"{case}: {way}", "time", run.seconds, "s")
            yield Figure(f"{case}: {way}", "memory", run.megabytes, "MB")


def _counted(data: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in data:
        digest.update(piece)
        yield piece


def _run(command: str, data: Iterator[bytes], take: Callable[[bytes], object]) -> Run:
    """Feed a process through a pipe, and take what it writes through another."""
    start = time.monotonic()
    arguments = [sys.executable, "-m", "llmzip", command, "--quiet"]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = threading.Thread(target=_feed, args=(data, process.stdin))
    feeder.start()
    with process.stdout:
        while piece := process.stdout.read(_PIECE):
            take(piece)
    feeder.join()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ExactnessError(f"{command}: expected exit status 0, found {process.returncode}")
    return Run(time.monotonic() - start, usage.ru_maxrss / 1000)


def _feed(data: Iterator[bytes], pipe: IO[bytes]) -> None:
    with pipe:
        for piece in data:
            pipe.write(piece)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="Measure the memory of streams.")
    add = parser.add_argument
    add("--megabytes", type=positives, default=[10, 200], metavar="N,N", help="of data; default: 10,200")
    add("--text", type=Path, metavar="FILE", help="a text, a quarter of the data, for the model; default: none")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
