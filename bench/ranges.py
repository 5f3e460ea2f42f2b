"""What a part of an archive costs: a range in its middle, against the whole.

    python -m bench.ranges --text FILE [--bytes N] [--length 1024] [--model bundled] [--repeats 3]

Both are decoded and compared. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import positive, read_text
from bench.contenders import BUNDLED, model_reference
from bench.results import Figure
from bench.timing import Spread, interleave
from llmzip.archive import compress
from llmzip.decoding import read_range
from llmzip.errors import ConfigError, ExactnessError
from llmzip.format import FrameIndex
from llmzip.options import CompressOptions, DecompressOptions

DEFAULT_BYTES = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("ranges", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    raw = read_text(chosen.text, chosen.bytes)
    if len(raw) < chosen.length:
        raise ConfigError(f"{chosen.text}: expected at least {chosen.length} bytes, found {len(raw)}")
    model = model_reference(chosen.model)
    archive = compress(raw, CompressOptions(model=model))
    middle = (len(raw) - chosen.length) // 2
    ranges = {"range": (middle, middle + chosen.length), "whole": (0, len(raw))}
    options = DecompressOptions(model=model)

    def decode(start: int, stop: int) -> None:
        if b"".join(read_range(io.BytesIO(archive), start, stop, options)) != raw[start:stop]:
            raise ExactnessError(f"range: expected bytes {start} to {stop - 1} of the text, found others")

    decode(*ranges["range"])
    cases = {name: lambda bounds=bounds: decode(*bounds) for name, bounds in ranges.items()}
    seconds = interleave(cases, chosen.repeats)
    print(f"{chosen.model}, {chosen.text.name}: {len(raw):,} bytes; {results.device()}; medians of {chosen.repeats}\n")
    print("| part | bytes | chunks decoded | bytes in them | s |", "| --- | ---: | ---: | ---: | ---: |", sep="\n")
    for name, (start, stop) in ranges.items():
        chunks = [place.record.raw_length for _, place, _ in FrameIndex(io.BytesIO(archive)).chunks(start, stop)]
        spread = Spread.of(seconds[name])
        print(f"| {name} | {stop - start:,} | {len(chunks)} | {sum(chunks):,} | {spread.p50:.3f} |")
        case = f"{chosen.model}, {chosen.text.name}, {len(raw)} bytes: {stop - start} bytes"
        yield Figure(case, "chunks", len(chunks), "")
        yield Figure(case, "decoded", sum(chunks), "bytes")
        yield Figure(case, "time", spread.p50, "s", spread)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ranges", description="Time a part of an archive.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what to compress")
    add("--bytes", type=positive, default=DEFAULT_BYTES, metavar="N", help=f"of it, at most; default: {DEFAULT_BYTES}")
    add("--length", type=positive, default=1024, metavar="N", help="bytes in the range; default: 1024")
    add("--model", default=BUNDLED, help="name, id or path; default: bundled")
    add("--repeats", type=positive, default=3, metavar="R", help="default: 3")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
