"""How small: files through llmzip and through general compressors, each decoded and compared.

    python -m bench.ratio PATHS... [--models bundled,smollm2-135m] [--limit BYTES]

docs/benchmarks.md explains the columns. What does not come back as it was is not in the table, and the
command ends with status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import results
from bench.contenders import BUNDLED, Contender, llmzip_with, opponents
from bench.results import Figure
from llmzip.errors import ExactnessError, LlmzipError, ModelNotFoundError

HEADER = (
    "| compressor | bytes | bits per byte | with the model | compress, s | decompress, s |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass(frozen=True)
class Measurement:
    """One contender on one file, decoded and compared."""

    contender: Contender
    n_raw: int
    n_payload: int
    compress_seconds: float
    decompress_seconds: float

    @property
    def bits_per_byte(self) -> float:
        """Bits of the payload for each byte of the file; the model is not counted."""
        return 8 * self.n_payload / self.n_raw

    @property
    def bits_per_byte_with_model(self) -> float:
        """The same with the model's files counted."""
        return 8 * (self.n_payload + self.contender.model_size) / self.n_raw

    def row(self) -> str:
        """A row of the Markdown table."""
        with_model = f"{self.bits_per_byte_with_model:.3f}" if self.contender.model_size else ""
        seconds = f"{self.compress_seconds:.3f} | {self.decompress_seconds:.3f}"
        return f"| {self.contender.name} | {self.n_payload:,} | {self.bits_per_byte:.3f} | {with_model} | {seconds} |"

    def figures(self, file: str) -> Iterable[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{file}: {self.contender.name}"
        yield Figure(case, "size", self.n_payload, "bytes")
        yield Figure(case, "ratio", self.bits_per_byte, "bits/byte")
        if self.contender.model_size:
            yield Figure(case, "ratio with the model", self.bits_per_byte_with_model, "bits/byte")
        yield Figure.timed(case, "compress", [self.compress_seconds])
        yield Figure.timed(case, "decompress", [self.decompress_seconds])


def measure(contender: Contender, raw: bytes) -> Measurement:
    """Compress, decompress and compare.

    Raises:
        ExactnessError: other bytes came back.
    """
    contender.warm_up()
    start = time.perf_counter()
    payload = contender.compress(raw)
    middle = time.perf_counter()
    restored = contender.decompress(payload, len(raw))
    end = time.perf_counter()
    if restored != raw:
        raise ExactnessError(f"{contender.name}: expected the {len(raw)} bytes of the input back, found others")
    return Measurement(contender, len(raw), len(payload), middle - start, end - middle)


def smallest(variants: Sequence[Contender], raw: bytes) -> Measurement:
    """The measurement of the variant that compresses best; only that one is decoded."""
    if len(variants) > 1:
        variants = [min(variants, key=lambda variant: len(variant.compress(raw)))]
    return measure(variants[0], raw)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    try:
        contenders = [*opponents(), *((llmzip_with(name),) for name in chosen.models.split(",") if name)]
    except ModelNotFoundError as error:
        print(f"ratio: {error}", file=sys.stderr)
        return 1
    failed = False
    for path in chosen.paths:
        raw = _read(path, chosen.limit)
        file = f"{path.name}[:{len(raw)}]" if len(raw) < path.stat().st_size else path.name
        print(f"\n### {file}, {len(raw):,} bytes\n")
        print(*HEADER, sep="\n", flush=True)
        for variants in contenders:
            try:
                found = smallest(variants, raw)
            except LlmzipError as error:
                print(f"{file}: {error}", file=sys.stderr)
                failed = True
                continue
            print(found.row(), flush=True)
            results.append("ratio", found.figures(file), chosen.results)
    return int(failed)


def _read(path: Path, limit: int | None) -> bytes:
    with path.open("rb") as file:
        raw = file.read(-1 if limit is None else limit)
    if not raw:
        raise SystemExit(f"{path}: expected at least one byte, found none")
    return raw


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ratio", description="Compare llmzip's archives in size.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files to compress")
    parser.add_argument("--models", default=BUNDLED, help="names, ids or paths, with commas between; default: bundled")
    parser.add_argument("--limit", type=int, metavar="BYTES", help="only the first bytes of each file")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
