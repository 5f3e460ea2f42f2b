"""Damaged and crafted archives: each must give one of llmzip's errors or the right bytes, in time and in little memory.

    python -m bench.hostile [--mutations 10000] [--seed 0]

Archives of every method, of several frames and of files are changed at random: bits, bytes, cuts, pieces of themselves
and of each other put elsewhere, numbers replaced by extreme ones, checksums made right again. Each is decompressed,
listed, tested, salvaged, extracted and read by a range, and what these find must agree. Whatever else comes out is told
with the number that makes it again, nothing is recorded, and the command ends with status 1. docs/benchmarks.md
explains the figures.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import positive
from bench.results import Figure
from bench.timing import Spread
from llmzip.archive import compress, decompress, verify_stream
from llmzip.contents import find_members
from llmzip.decoding import read_range
from llmzip.encoding import StreamCompressor
from llmzip.errors import ExactnessError, LlmzipError
from llmzip.extraction import Extractor
from llmzip.format import FrameWriter, Header, Method, Sections, scan
from llmzip.format.header import crc8
from llmzip.format.limits import DIGEST_SIZE, HEADER_SIZE, INDEX_CHECK_SIZE, MAGIC
from llmzip.format.reader import ByteReader
from llmzip.format.sections import read_sections
from llmzip.format.trailer import LENGTH_SIZE
from llmzip.general import compress_general
from llmzip.members import Kind, Member, pack_members
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.salvage import salvage_stream

DEFAULT_MUTATIONS = 10_000
# What no archive of this size may take.
MAX_SECONDS = 20.0
MAX_MEGABYTES = 1024.0
_TEXT = b"It was the best of times, it was the worst of times, it was the age of wisdom.\n"
_DECODE = DecompressOptions(threads=1, lanes=2)
_RANGE = 5, 60
_EXTREMES = (b"\xff" * 9, b"\xff" * 8 + b"\x7f", b"\x80" * 8 + b"\x01", b"\xff\xff\xff\xff\x0f", bytes(4), b"\xff" * 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("hostile", lambda: _measure(chosen), chosen.results)


def seeds() -> list[bytes]:
    """The archives that are changed: each method, two frames, files; all small."""
    rng = random.Random(0)
    noise, runs = rng.randbytes(200), bytes(3000)
    chunked = CompressOptions(threads=1, chunk_size=120)
    plain = [compress(content, CompressOptions(threads=1)) for content in (b"", b"x", _TEXT, noise, runs)]
    several = [compress(_TEXT * 2 + noise + runs, chunked), plain[2] + plain[4]]
    long = _frame([rng.randbytes(20_000), bytes(range(256)) * 100, rng.randbytes(15_000)])
    indexed = _frame([rng.randbytes(rng.randrange(1, 6)) for _ in range(140)])
    return [*plain, *several, _files(chunked), indexed, long]


def _files(options: CompressOptions) -> bytes:
    members = [
        Member(b"d", Kind.FOLDER, 0o755, 0),
        Member(b"d/a", Kind.FILE, 0o644, 1, len(_TEXT)),
        Member(b"d/l", Kind.LINK, 0o777, 2, target=b"a"),
    ]
    target = io.BytesIO()
    with StreamCompressor(target, options, sections=Sections(pack_members(members))) as compressor:
        compressor.write(_TEXT)
        compressor.finish()
    return target.getvalue()


def _frame(chunks: Sequence[bytes]) -> bytes:
    """Chunks without a model; from the 65th on there is an index."""
    target = io.BytesIO()
    writer = FrameWriter(target, Header())
    for raw in chunks:
        writer.write_chunk(Method.GENERAL, raw, compress_general(raw))
    writer.finish()
    return target.getvalue()


def mutate(archive: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The archive with one to four changes."""
    found = bytearray(archive)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(found, others, rng)
    return bytes(found)


def _flip(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    if found:
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)


def _overwrite(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place, n = rng.randrange(len(found) + 1), rng.randrange(1, 9)
    found[place : place + n] = rng.randbytes(n)


def _cut(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    del found[rng.randrange(len(found) + 1) :]


def _remove(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place = rng.randrange(len(found) + 1)
    del found[place : place + rng.randrange(1, 40)]


def _splice(found: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(others)
    start = rng.randrange(len(other) + 1)
    place = rng.randrange(len(found) + 1)
    found[place : place + rng.choice((0, 0, 20))] = other[start : start + rng.randrange(1, 80)]


def _repeat(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    start = rng.randrange(len(found) + 1)
    found[start:start] = found[start : start + rng.randrange(1, 200)]


def _extreme(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    place, number = rng.randrange(len(found) + 1), rng.choice(_EXTREMES)
    found[place : place + rng.choice((1, len(number)))] = number


def _mend_header(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    """Change the header, and make its checksum right, so that what comes behind it is reached."""
    if len(found) >= HEADER_SIZE:
        found[rng.randrange(4, HEADER_SIZE - 1)] ^= 1 << rng.randrange(8)
        found[HEADER_SIZE - 1] = crc8(bytes(found[: HEADER_SIZE - 1]))


def _mend_sections(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    """Change a section, and make the checksum right."""
    reader = ByteReader(io.BytesIO(bytes(found)))
    try:
        header = Header.unpack(reader.read(HEADER_SIZE, "header"))
        if not header.sections:
            return
        read_sections(reader)
    except LlmzipError:
        return
    end = reader.offset - 4
    found[rng.randrange(HEADER_SIZE, end)] ^= 1 << rng.randrange(8)
    found[end : end + 4] = zlib.crc32(found[HEADER_SIZE:end]).to_bytes(4, "little")


def _mend_index(found: bytearray, _others: Sequence[bytes], rng: random.Random) -> None:
    """Change the index at the end, and make its check right."""
    mark = len(found) - LENGTH_SIZE - int.from_bytes(found[-LENGTH_SIZE:], "little")
    check = len(found) - LENGTH_SIZE - DIGEST_SIZE - INDEX_CHECK_SIZE
    if HEADER_SIZE < mark < check:
        found[rng.randrange(mark, check)] ^= 1 << rng.randrange(8)
        found[check : check + INDEX_CHECK_SIZE] = zlib.crc32(found[mark:check]).to_bytes(INDEX_CHECK_SIZE, "little")


_CHANGES: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _flip, _overwrite, _cut, _remove, _splice, _repeat, _extreme, _mend_header, _mend_sections, _mend_index,
)  # fmt: skip


def outcomes(archive: bytes) -> Iterator[tuple[str, bytes | LlmzipError]]:
    """Each way of reading an archive, and what came of it: bytes, or an error of ours.

    Ways that must agree are held against each other, and an `ExactnessError` tells where they do not.
    """
    whole = _tried(lambda: decompress(archive, _DECODE))
    yield "decompress", whole
    yield "list", _tried(lambda: bytes(len(list(scan(io.BytesIO(archive))))))
    found = _tried(lambda: b"".join(read_range(io.BytesIO(archive), *_RANGE, _DECODE)))
    if isinstance(whole, bytes) and found != whole[slice(*_RANGE)]:
        raise ExactnessError(f"range: expected the bytes {_RANGE} of the content, found {found!r}")
    yield "range", found
    verified = _tried(lambda: bytes(len(list(verify_stream(io.BytesIO(archive), _DECODE)))))
    if (verified == b"") != isinstance(whole, bytes):
        raise ExactnessError(f"test: expected what decompress finds, found {verified!r}")
    yield "test", verified
    yield "salvage", _tried(lambda: _salvage(archive, whole))
    yield "extract", _tried(lambda: _extract(archive))


def _tried(way: Callable[[], bytes]) -> bytes | LlmzipError:
    try:
        return way()
    except ExactnessError:
        raise
    except LlmzipError as error:
        return error


def _salvage(archive: bytes, whole: bytes | LlmzipError) -> bytes:
    target = io.BytesIO()
    losses = salvage_stream(io.BytesIO(archive), target, _DECODE)
    if isinstance(whole, bytes) and (losses or target.getvalue() != whole):
        raise ExactnessError(f"salvage: expected the content of a whole archive, found {losses}")
    return target.getvalue()


def _extract(archive: bytes) -> bytes:
    """Make the members in a folder of a folder; nothing may appear in the outer one."""
    file = io.BytesIO(archive)
    places = find_members(file)
    with tempfile.TemporaryDirectory() as outer:
        try:
            Extractor(f"{outer}/inner").extract(file, places, _DECODE)
        finally:
            if {path.name for path in Path(outer).iterdir()} - {"inner"}:
                raise ExactnessError("extract: expected nothing outside of the folder, found something")
    return b""


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    originals = seeds()
    contents = {decompress(archive, _DECODE) for archive in originals}
    counts: Counter[tuple[str, str]] = Counter()
    seconds = []
    for i in range(chosen.mutations):
        rng = random.Random(f"{chosen.seed}, {i}")
        archive = mutate(rng.choice(originals), originals, rng)
        start = time.perf_counter()
        _check(archive, i, contents, counts)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > MAX_SECONDS:
            raise ExactnessError(f"mutation {i}: expected at most {MAX_SECONDS} s, found {seconds[-1]:.1f}")
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if megabytes > MAX_MEGABYTES:
        raise ExactnessError(f"memory: expected at most {MAX_MEGABYTES} MB, found {megabytes:.0f}")
    print(f"{chosen.mutations:,} mutations of {len(originals)} archives, seed {chosen.seed}: all as they should be")
    print(
        f"longest {max(seconds):.2f} s, {megabytes:.0f} MB at most\n\n| way | outcome | times |\n| --- | --- | ---: |"
    )
    for (way, outcome), n in sorted(counts.items()):
        print(f"| {way} | {outcome} | {n:,} |")
    case = f"{chosen.mutations} mutations, seed {chosen.seed}"
    spread = Spread.of(seconds)
    rows = [Figure(f"{case}: {way}", outcome, n, "") for (way, outcome), n in sorted(counts.items())]
    rows += [Figure(case, "longest", max(seconds), "s")]
    return [*rows, Figure(case, "time", spread.p50, "s", spread), Figure(case, "memory", megabytes, "MB")]


def _check(archive: bytes, i: int, contents: set[bytes], counts: Counter[tuple[str, str]]) -> None:
    """Read one archive in every way, and count; raises ExactnessError for what must not be."""
    try:
        for way, outcome in outcomes(archive):
            counts[way, "content" if isinstance(outcome, bytes) else type(outcome).__name__] += 1
            # Frames put together are another archive, whose content is right if each of its checks is.
            one_frame = archive.count(MAGIC) == 1
            if way == "decompress" and isinstance(outcome, bytes) and one_frame and outcome not in contents:
                raise ExactnessError(f"expected an error, found {len(outcome)} bytes of other content")
    except ExactnessError as error:
        raise ExactnessError(f"mutation {i}: {error}") from error
    except Exception as error:  # any class: one that is not ours is the very fault that this command looks for
        raise ExactnessError(f"mutation {i}: expected an error of llmzip, found {error!r}") from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description="Read damaged archives.")
    add = parser.add_argument
    add("--mutations", type=positive, default=DEFAULT_MUTATIONS, metavar="N", help=f"default: {DEFAULT_MUTATIONS}")
    add("--seed", type=int, default=0, metavar="S", help="of the changes; default: 0")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
