"""What `--memory` promises: the program under limits, and the most memory that it and its workers had.

    python -m bench.memory --text FILE [--bytes N] [--model bundled] [--mebibytes 256,512] [--workers 0,2]

A run that takes more than its limit ends the command with status 1, as does one whose bytes do not come back. One that
is refused is named. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import numbers, positive, positives, read_text
from bench.contenders import BUNDLED
from bench.results import Figure
from llmzip.bench.memory import tree_peak
from llmzip.errors import ConfigError, ExactnessError

HEADER = ("| limit, MiB | workers | compress, MiB | decompress, MiB |", "| ---: | ---: | ---: | ---: |")
_EVERY = 0.05
_MIB = 1 << 20
_REFUSED = ConfigError.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("memory", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    print(*HEADER, sep="\n")
    for limit in chosen.mebibytes:
        for workers in chosen.workers:
            peaks = dict(_peaks(chosen, limit, workers))
            shown = (f"{peak:.0f}" if peak else "refused" for peak in peaks.values())
            print(f"| {limit} | {workers} | " + " | ".join(shown) + " |", flush=True)
            case = f"{chosen.model}, {chosen.text.name}: {limit} MiB, {workers} workers"
            yield from (Figure(f"{case}: {way}", "memory", peak, "MiB") for way, peak in peaks.items() if peak)


def _peaks(chosen: argparse.Namespace, limit: int, workers: int) -> Iterator[tuple[str, float | None]]:
    """The memory of both ways; None where a way is refused."""
    with tempfile.TemporaryDirectory() as name:
        text, archive, restored = (Path(name) / part for part in ("text", "archive", "restored"))
        text.write_bytes(read_text(chosen.text, chosen.bytes))
        own = ["--memory", f"{limit}M", "--workers", str(workers), "--quiet"]
        own += [] if chosen.model == BUNDLED else ["--model", chosen.model]
        yield "compress", _run(limit, ["compress", str(text), str(archive), *own])
        if not archive.exists():
            _run(1 << 20, ["compress", str(text), str(archive), *own[4:]])
        peak = _run(limit, ["decompress", str(archive), str(restored), *own])
        if peak and restored.read_bytes() != text.read_bytes():
            raise ExactnessError("decompress: expected the bytes of the text back, found others")
        yield "decompress", peak


def _run(limit: int, arguments: Sequence[str]) -> float | None:
    """Run the program; the most memory that its processes had together, in MiB, or None if it refused."""
    process = subprocess.Popen([sys.executable, "-m", "llmzip", *arguments], stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_peak(process.pid, with_root=True) / _MIB)
        time.sleep(_EVERY)
    if process.returncode == _REFUSED:
        return None
    if process.returncode:
        raise ExactnessError(f"{arguments[0]}: expected exit status 0, found {process.returncode}")
    if peak > limit:
        raise ExactnessError(f"{arguments[0]}: expected at most {limit} MiB, found {peak:.0f}")
    return peak


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Hold --memory against the system.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what is compressed")
    add("--bytes", type=positive, default=None, metavar="N", help="of it; default: all")
    add("--model", default=BUNDLED, help="name of a stored model")
    add("--mebibytes", type=positives, default=[224, 384, 768, 2048], metavar="N,N", help="limits")
    add("--workers", type=numbers, default=[0, 2], metavar="N,N", help="processes; default: 0,2")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
