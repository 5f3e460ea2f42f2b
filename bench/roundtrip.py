"""Any bytes in, the same bytes out: `python -m bench.roundtrip [PATHS...] [--model NAME] [--limit BYTES]`.

Every file, and some inputs made here (nothing, one byte, all bytes, a picture, random bytes), goes through
`llmzip.compress` and `llmzip.decompress`; each archive is held against the bound of SPEC.md, section 8. Ends with
status 1 at the first difference.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import results
from bench.contenders import BUNDLED, model_reference
from bench.results import Figure
from llmzip import CompressOptions, DecompressOptions, ExactnessError, LlmzipError, compress, decompress
from llmzip.format import scan

HEADER_BOUND, CHUNK_BOUND = 24, 8
N_RANDOM = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    print("| input | bytes | archive | bits/byte | bound |", "| --- | ---: | ---: | ---: | ---: |", sep="\n")
    try:
        figures = [_check(name, raw, chosen.model) for name, raw in _inputs(chosen.paths, chosen.limit)]
    except LlmzipError as error:
        print(f"roundtrip: {error}", file=sys.stderr)
        return 1
    results.append("roundtrip", figures, chosen.results)
    return 0


def _check(name: str, raw: bytes, model: str) -> Figure:
    reference = model_reference(model)
    archive = compress(raw, CompressOptions(model=reference))
    if decompress(archive, DecompressOptions(model=reference)) != raw:
        raise ExactnessError(f"{name}: decoded bytes differ from the input")
    n_chunks = sum(total.n_chunks for frame in scan(io.BytesIO(archive)) for total in frame.methods.values())
    bound = len(raw) + HEADER_BOUND + CHUNK_BOUND * n_chunks
    if len(archive) > bound:
        raise ExactnessError(f"{name}: expected an archive of at most {bound} bytes, found {len(archive)}")
    rate = f"{8 * len(archive) / len(raw):.3f}" if raw else ""
    print(f"| {name} | {len(raw):,} | {len(archive):,} | {rate} | {bound:,} |", flush=True)
    return Figure(f"{model}, {name}, {len(raw)} bytes", "archive", len(archive), "bytes")


def _inputs(paths: Sequence[Path], limit: int | None) -> Iterator[tuple[str, bytes]]:
    yield "(empty)", b""
    yield "(one byte)", b"a"
    yield "(all 256 bytes)", bytes(range(256))
    yield "(picture, PNG)", _picture()
    yield "(random bytes)", random.Random(0).randbytes(min(N_RANDOM, limit or N_RANDOM))
    for path in paths:
        yield path.name, path.read_bytes()[:limit]


def _picture() -> bytes:
    """A grey noise PNG of 64 x 64 pixels."""
    rows = b"".join(b"\0" + random.Random(y).randbytes(64) for y in range(64))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.roundtrip", description="Check that any bytes come back.")
    add = parser.add_argument
    add("paths", type=Path, nargs="*", metavar="PATH", help="files to check, beside the inputs made here")
    add("--model", default=BUNDLED, help="name, id or path; default: bundled")
    add("--limit", type=int, metavar="BYTES", help="only the first bytes of each")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
