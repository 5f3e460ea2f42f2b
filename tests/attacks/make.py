"""Makes the archives in `files`, each of them wrong in one way: `python tests/attacks/make.py`.

What nobody's writer makes is written here byte by byte. `expected.tsv` says which error a reader gives for each, and
words of its message; both are made anew each time, and a test compares them.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import brotli
import zstandard

from llmzip.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    ModelNotFoundError,
    NotAnArchiveError,
    TruncatedError,
    VersionError,
)
from llmzip.format import FrameWriter, Header, Method
from llmzip.format.chunk_record import chunk_check
from llmzip.format.header import crc8
from llmzip.format.varint import pack_varint
from llmzip.general import compress_general

FOLDER = Path(__file__).parent
HELLO = b"hello\n"
SINGLE, SECTIONS = 1, 2
CONDITIONER, MEMBERS, COMMENT = 1, 2, 3


class Attack(NamedTuple):
    """An archive that must be refused.

    Attributes:
        blob: its bytes.
        error: the class of the error.
        words: what the message has.
        limit: name of the limit that it exceeds by one, if it does.
        at_limit: the same archive at the limit, which is not refused for it.
    """

    blob: bytes
    error: type[Exception]
    words: str
    limit: str = ""
    at_limit: bytes = b""


def header(flags: int = SINGLE, *, model: bool = False, changes: dict[int, int] | None = None) -> bytes:
    """Sixteen bytes whose checksum is right; `changes` are bytes by their places."""
    data = bytearray(b"\x89L\r\n" + bytes([1, flags, 0x11, 0x53 if model else 0]))
    data += b"\xaa" * 5 + b"\xbb" * 2 if model else bytes(7)
    for at, value in (changes or {}).items():
        data[at] = value
    return bytes(data) + bytes([crc8(bytes(data))])


def record(method: int, n_raw: int, payload: bytes, *, n_payload: int | None = None, raw: bytes = b"") -> bytes:
    """A record and its payload, with lengths as they are given."""
    head = pack_varint(n_raw << 2 | method)
    if method:
        size = ((n_raw - 1).bit_length() + 7) // 8
        head += (len(payload) if n_payload is None else n_payload).to_bytes(size, "little")
    return head + chunk_check(Method(method), raw, payload) + payload


def stored(raw: bytes) -> bytes:
    """A stored chunk."""
    return record(0, len(raw), raw, raw=raw)


def section(kind: int, body: bytes, *, n_body: int | None = None) -> bytes:
    """One section without the end of all."""
    return bytes([kind]) + pack_varint(len(body) if n_body is None else n_body) + body


def sealed(sections: bytes) -> bytes:
    """Sections with their end and checksum."""
    return sections + b"\0" + zlib.crc32(sections + b"\0").to_bytes(4, "little")


def frame(*chunks: bytes) -> bytearray:
    """A good frame of stored chunks, to be spoiled."""
    target = io.BytesIO()
    writer = FrameWriter(target, Header())
    for raw in chunks:
        writer.write_chunk(Method.STORED, raw, raw)
    writer.finish()
    return bytearray(target.getvalue())


def table(*members: bytes, n_members: int | None = None, raw: bytes = HELLO) -> bytes:
    """An archive with a table of such entries, over a content of `raw`."""
    entries = pack_varint(len(members) if n_members is None else n_members) + b"".join(members)
    return with_table(pack_varint(len(entries)) + entries, raw)


def with_table(body: bytes, raw: bytes = HELLO) -> bytes:
    """An archive with such a section of members."""
    return header(SINGLE | SECTIONS) + sealed(section(MEMBERS, body)) + stored(raw)


def member(path: bytes, kind: int = 0, *, mode: int = 0o644, size: int = len(HELLO), target: bytes = b"") -> bytes:
    """An entry of a table: 0 a file, 1 a folder, 2 a link."""
    entry = pack_varint(kind) + pack_varint(len(path)) + path + pack_varint(mode) + pack_varint(0)
    return entry + {0: pack_varint(size), 2: pack_varint(len(target)) + target}.get(kind, b"")


def changed(blob: bytes | bytearray, at: int, value: int | None = None) -> bytes:
    """An archive with one byte changed."""
    data = bytearray(blob)
    data[at] = data[at] ^ 1 if value is None else value
    return bytes(data)


def general(payload: bytes, n_raw: int) -> bytes:
    """An archive of one general chunk."""
    return header() + record(1, n_raw, payload)


def limited(limit: str, value: int, words: str, make: Callable[[int], bytes], error: type[Exception]) -> Attack:
    """An archive one above a limit, and the same at it."""
    return Attack(make(value + 1), error, words, limit, make(value))


def headers() -> Iterable[tuple[str, Attack]]:
    """What is wrong before anything is coded."""
    good = header() + stored(HELLO)
    yield "empty", Attack(b"", TruncatedError, "header")
    yield "magic-only", Attack(good[:4], TruncatedError, "header")
    yield "magic-of-gzip", Attack(b"\x1f\x8b" + good[2:], NotAnArchiveError, "magic")
    yield "text-mode", Attack(good.replace(b"\r\n", b"\n"), NotAnArchiveError, "magic")
    yield "seven-bits", Attack(bytes(byte & 0x7F for byte in good), NotAnArchiveError, "magic")
    yield "header-damaged", Attack(changed(good, 8), ChecksumError, "header checksum")
    yield "format-version", Attack(header(changes={4: 2}) + good[16:], VersionError, "format version")
    yield "arithmetic-version", Attack(header(changes={6: 0x12}) + good[16:], VersionError, "arithmetic version")
    yield "coder-version", Attack(header(changes={6: 0x21}) + good[16:], VersionError, "coder version")
    yield "reserved-flag", Attack(header(SINGLE | 8) + good[16:], VersionError, "flags")
    yield "codebook-without-model", Attack(header(SINGLE | 4) + good[16:], FormatError, "codebook")
    yield "window-without-model", Attack(header(changes={7: 0x53}) + good[16:], FormatError, "without an artefact")
    yield (
        "unknown-model",
        Attack(header(model=True) + record(2, 9, b"12345678", raw=b"9 letters"), ModelNotFoundError, "aaaaaaaaaa"),
    )
    for name, value, make in (
        ("MAX_WINDOW", 6, lambda code: code << 4),
        ("MAX_OVERLAP_SIXTEENTHS", 12, lambda code: 0x50 | code),
    ):
        yield (
            name.lower().replace("_", "-"),
            limited(name, value, "window code", lambda v, f=make: _windowed(f(v)), FormatError),  # type: ignore[misc]
        )


def _windowed(code: int) -> bytes:
    """An archive whose header names a model and such windows."""
    return header(model=True, changes={7: code}) + stored(HELLO)


def sections() -> Iterable[tuple[str, Attack]]:
    """What is wrong between header and chunks."""
    start, end = header(SINGLE | SECTIONS), stored(HELLO)
    yield "conditioner", Attack(start + sealed(section(CONDITIONER, b"x")) + end, FormatError, "beside a conditioner")
    both = header(SINGLE | SECTIONS | 4, model=True) + sealed(section(CONDITIONER, b"x"))
    yield "conditioner-and-codebook", Attack(both + end, FormatError, "no codebook beside a conditioner")
    empty = header(SINGLE | SECTIONS, model=True) + sealed(section(CONDITIONER, b""))
    yield "conditioner-empty", Attack(empty + end, FormatError, "a body")
    yield "unknown-section", Attack(start + sealed(section(77, b"x")) + end, VersionError, "section 77")
    yield "reserved-section", Attack(start + sealed(section(0x80, b"x")) + end, FormatError, "128 is reserved")
    twice = section(MEMBERS, b"\1\0") * 2
    yield "section-twice", Attack(start + sealed(twice) + end, FormatError, "each type once")
    both = section(MEMBERS, b"\1\0") + section(MEMBERS | 0x80, b"")
    yield "section-twice-optional", Attack(start + sealed(both) + end, FormatError, "each type once")
    good = sealed(section(COMMENT | 0x80, b"a comment"))
    yield "section-damaged", Attack(start + changed(good, 5) + end, ChecksumError, "section checksum")
    yield "section-cut", Attack((start + good)[:-7], TruncatedError, "section")
    yield (
        "section-length",
        limited(
            "MAX_SECTION_LENGTH", 1 << 20, "section length", lambda n: start + section(0x83, b"", n_body=n), LimitError
        ),
    )


def records() -> Iterable[tuple[str, Attack]]:
    """What is wrong with the record of a chunk, or with a payload."""
    yield "varint-long", Attack(header() + b"\xff" * 10, FormatError, "varint")
    yield "varint-padded", Attack(header() + b"\x98\x00", FormatError, "shortest form")
    yield "chunk-damaged", Attack(changed(header() + stored(HELLO), -1), ChecksumError, "chunk check")
    yield "chunk-cut", Attack((header() + stored(HELLO))[:-1], TruncatedError, "payload")
    yield "chunk-that-is-not-there", Attack(header() + record(0, 1 << 25, b"few"), TruncatedError, "payload")
    yield "chunk-empty", Attack(header(0) + stored(b""), FormatError, "at least 1")
    yield "payload-as-long-as-its-chunk", Attack(general(b"123456", 6), FormatError, "fewer than the 6")
    yield "model-chunk-without-model", Attack(header() + record(2, 9, b"1234"), FormatError, "without a model")
    yield "trailer-in-single", Attack(header() + b"\x03", FormatError, "found a trailer")
    for method, name, limit in ((0, "stored", 1 << 26), (1, "general", 1 << 26), (2, "model", (1 << 20) + 1)):
        yield (
            f"{name}-length",
            limited(
                f"MAX_{name.upper()}_RAW_LENGTH",
                limit - 1,
                f"{name} chunk raw length",
                lambda n, m=method: header(model=True) + record(m, n, b"", n_payload=1024 if m else None),  # type: ignore[misc]
                LimitError,
            ),
        )
    yield (
        "model-ratio",
        limited(
            "MAX_MODEL_RATIO",
            4 * 1024,
            "model chunk raw length",
            lambda n: header(model=True) + record(2, n, b"123"),
            LimitError,
        ),
    )


def payloads() -> Iterable[tuple[str, Attack]]:
    """What no general compressor makes."""
    zeros = bytes(100_000)
    yield "zstd-garbage", Attack(general(b"\x28\xb5\x2f\xfd garbage", 90), FormatError, "zstd payload")
    zstd = zstandard.ZstdCompressor(write_content_size=True).compress(zeros)
    yield "zstd-bomb", Attack(general(zstd, 99_999), FormatError, "zstd payload")
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    yield "zstd-of-unknown-length", Attack(general(unknown, 100_000), FormatError, "zstd payload")
    yield "zstd-with-more", Attack(general(zstd + b"more", 100_000), FormatError, "zstd payload")
    yield (
        "zstd-window",
        limited("MAX_ZSTD_WINDOW", 26, "window of at most", lambda n: general(_wide_zstd(n), 100_000), LimitError),
    )
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 4, "lp": 0, "pb": 0, "dict_size": 1 << 17}]
    stream = b"\x04" + lzma.compress(zeros, lzma.FORMAT_RAW, filters=filters)
    yield "lzma-bomb", Attack(general(stream, 99_999), FormatError, "LZMA payload")
    yield "lzma-short", Attack(general(stream, 100_001), FormatError, "LZMA payload")
    yield "lzma-cut", Attack(general(stream[:-3], 100_000), FormatError, "LZMA payload")
    yield "lzma-properties", Attack(general(b"\xe1" + stream[1:], 100_000), FormatError, "properties")
    coded = b"\xff" + brotli.compress(zeros)
    yield "brotli-bomb", Attack(general(coded, 99_999), FormatError, "Brotli payload")
    yield "brotli-cut", Attack(general(coded[:-1], 100_000), FormatError, "Brotli payload")
    yield "no-payload", Attack(general(b"", 5), FormatError, "LZMA payload")


def _wide_zstd(window_log: int) -> bytes:
    """A frame of 100,000 zeros in one block of a repeated byte, with a window of `2**window_log`."""
    block = (100_000 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x80" + bytes([window_log - 10 << 3]) + (100_000).to_bytes(4, "little") + block


def trailers() -> Iterable[tuple[str, Attack]]:
    """What is wrong behind the chunks."""
    two, many = frame(HELLO, b"world\n"), frame(*(b"%d\n" % i for i in range(200)))
    yield "no-chunks", Attack(header(0) + b"\x03" + bytes(6) + b"\x07\x00", FormatError, "at least one chunk")
    yield "digest", Attack(changed(two, -3), ChecksumError, "content digest")
    yield "trailer-length", Attack(changed(two, -2), FormatError, "trailer length")
    yield "trailer-cut", Attack(bytes(two[:-4]), TruncatedError, "digest")
    yield "no-trailer", Attack(bytes(two[:-9]), TruncatedError, "chunk raw length")
    yield "index-damaged", Attack(changed(many, -16), ChecksumError, "index check")
    mark = len(many) - 2 - int.from_bytes(many[-2:], "little")
    yield "index-count", Attack(changed(many, mark, many[mark] + 4), FormatError, "expected 3 entries")
    body = bytearray(many[mark:-12])
    body[1] ^= 1
    moved = bytes(many[:mark] + body) + zlib.crc32(body).to_bytes(4, "little") + bytes(many[-8:])
    yield "index-elsewhere", Attack(moved, FormatError, "places of the chunks")
    yield "trailing-bytes", Attack(bytes(two) + b"and more of it that is none", FormatError, "trailing bytes")
    yield "second-frame-damaged", Attack(bytes(two) + changed(two, 20), ChecksumError, "chunk check")


def members() -> Iterable[tuple[str, Attack]]:
    """Tables that lead astray."""
    for name, path in {
        "absolute": b"/etc/passwd",
        "parent": b"../up",
        "parent-inside": b"a/../../up",
        "dot": b"a/./b",
        "no-name": b"",
        "empty-part": b"a//b",
        "final-stroke": b"a/",
        "nul": b"a\0b",
    }.items():
        yield f"path-{name}", Attack(table(member(path)), FormatError, "member path")
    yield (
        "path-length",
        limited("MAX_PATH_LENGTH", 4096, "member path", lambda n: table(member(b"a" * n)), LimitError),
    )
    yield (
        "path-depth",
        limited("MAX_PATH_DEPTH", 256, "member path", lambda n: table(member(b"/".join([b"a"] * n))), LimitError),
    )
    half = member(b"a", size=3)
    yield "path-twice", Attack(table(half, half), FormatError, "each path once")
    second = table(member(b"a"))
    yield "path-twice-in-frames", Attack(second + second, FormatError, "each path once")
    yield "path-below-file", Attack(table(member(b"a"), member(b"a/b", size=0)), FormatError, "to be a folder")
    link = member(b"a", 2, target=b"elsewhere")
    yield "path-below-link", Attack(table(link, member(b"a/b")), FormatError, "to be a folder")
    yield "link-without-target", Attack(table(member(b"a", 2)), FormatError, "member target")
    yield "link-target-nul", Attack(table(member(b"a", 2, target=b"b\0c")), FormatError, "member target")
    yield (
        "link-target-length",
        limited(
            "MAX_PATH_LENGTH",
            4096,
            "member target",
            lambda n: table(member(b"a"), member(b"b", 2, target=b"c" * n)),
            LimitError,
        ),
    )
    yield "kind", Attack(table(member(b"a", 3)), FormatError, "member kind")
    yield "mode", Attack(table(member(b"a", mode=0o10000)), FormatError, "permission bits")
    yield "sizes", Attack(table(member(b"a", size=7)), FormatError, "members of 6 bytes together")
    yield "size-huge", Attack(table(member(b"a", size=(1 << 63) - 1)), FormatError, "members of 6 bytes together")
    yield "count-huge", Attack(table(member(b"a"), n_members=(1 << 63) - 1), FormatError, "left")
    yield "table-with-more", Attack(table(member(b"a"), member(b"b", size=0), n_members=1), FormatError, "its end")
    yield "table-cut", Attack(with_table(b"\x09\x01\x00\x01"), FormatError, "payload")
    yield (
        "table-length",
        limited("MAX_TABLE_LENGTH", (1 << 20) - 16, "member table length", _long_table, LimitError),
    )


def _long_table(length: int) -> bytes:
    """A table of so many bytes, most of them zeros behind its end: a few hundred bytes here."""
    return with_table(pack_varint(length) + compress_general(b"\0" + bytes(length - 1)))


def make() -> dict[str, Attack]:
    """All attacks by name."""
    return {
        name: attack for kind in (headers, sections, records, payloads, trailers, members) for name, attack in kind()
    }


if __name__ == "__main__":
    attacks = make()
    (FOLDER / "files").mkdir(exist_ok=True)
    for name, attack in attacks.items():
        (FOLDER / "files" / f"{name}.llmz").write_bytes(attack.blob)
    lines = [f"{name}\t{attack.error.__name__}\t{attack.words}\n" for name, attack in sorted(attacks.items())]
    (FOLDER / "expected.tsv").write_text("".join(lines), encoding="utf-8")
