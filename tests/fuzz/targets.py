"""What is fuzzed: each target takes any bytes and ends quietly, or with an error of ours; all else is a fault.

Where a checksum guards a part, the target puts the right one behind the bytes, so that they get past it.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable

import numpy as np

from llmzip.archive import decompress
from llmzip.conditioning.conditioner_file import MAGIC, unpack_conditioner_file
from llmzip.conditioning.conditioner_set import ConditionerSet
from llmzip.conditioning.description import describe
from llmzip.entropy import TokenDecoder, TokenEncoder
from llmzip.errors import ConditionerInvalidError, ConditionerMissingError, FormatError, ModelNotFoundError
from llmzip.exact.reference import frequencies
from llmzip.exact.spec import ModelSpec
from llmzip.format import FrameIndex, Header, read_frames, scan
from llmzip.format.header import crc8
from llmzip.format.reader import ByteReader
from llmzip.format.sections import Sections, read_sections
from llmzip.format.varint import pack_varint
from llmzip.general import decompress_general
from llmzip.members import check_members, pack_members, printable, unpack_members
from llmzip.options import DecompressOptions
from llmzip.salvage import salvage_stream

# Content that a target makes at most, so that a run is not about filling memory.
_MAX_SIZE = 1 << 22
_OPTIONS = DecompressOptions(threads=1, workers=0, max_size=_MAX_SIZE)
_SECTIONS = 2
_N_SYMBOLS = 64
_SPEC = ModelSpec(
    "none", 50, width=8, n_layers=2, n_heads=1, n_kv_heads=1, head_width=8, ff_width=8, max_positions=64, bos_id=0
)


def header(data: bytes) -> None:
    """A header that is read is written the same."""
    body = data[:15].ljust(15, b"\0")
    for head in (data[:16], body + bytes([crc8(body)])):
        try:
            found = Header.unpack(head)
        except FormatError:
            continue
        assert found.pack() == head


def sections(data: bytes) -> None:
    """Sections with the right checksum; what this reader knows of them can be written and read again."""
    body = data + b"\0"
    sealed = body + zlib.crc32(body).to_bytes(4, "little")
    for blob in (data, sealed):
        try:
            found = read_sections(ByteReader(io.BytesIO(blob)))
        except FormatError:
            continue
        packed = found.pack()
        assert not packed or read_sections(ByteReader(io.BytesIO(packed))) == found


def records(data: bytes) -> None:
    """Chunks and trailers behind a good header: two ways to read them agree."""
    for single in (False, True):
        blob = Header(64, 16, b"\1\2\3\4\5", single=single).pack() + data
        try:
            lengths = [frame.raw_length for frame in scan(io.BytesIO(blob))]
        except FormatError:
            continue
        chunks = [(p.record, payload) for frame in read_frames(io.BytesIO(blob)) for p, payload in frame.chunks()]
        assert sum(record.raw_length for record, _ in chunks) == sum(lengths)
        assert all(record.payload_length == len(payload) for record, payload in chunks)


def index(data: bytes) -> None:
    """The way by an index comes to the same chunks as the way along all of them, if that comes to its end.

    An index that was made to lie, its check included, is found out by the latter only.
    """
    blob = Header(single=False).pack() + data
    try:
        found = FrameIndex(io.BytesIO(blob), tolerant=bool(len(data) % 2))
        places = [(place.offset, place.raw_offset) for _, place, _ in found.chunks(0, found.raw_length)]
    except FormatError:
        return
    if found.damage is None:
        try:
            walked = [place for frame in read_frames(io.BytesIO(blob)) for place in frame.places()]
        except FormatError:
            return
        assert [(place.offset, place.raw_offset) for place in walked if place.record.raw_length] == places


def members(data: bytes) -> None:
    """A table that is read is written and read the same, and no path leaves its folder."""
    for body in (data, pack_varint(len(data)) + data):
        try:
            found = unpack_members(body)
            check_members(found)
        except FormatError:
            continue
        assert unpack_members(pack_members(found)) == found
        for member in found:
            assert os.path.normpath(b"/root/" + member.path).startswith(b"/root/")
            assert printable(member.path).isprintable()


def payload(data: bytes) -> None:
    """General payloads give as many bytes as was said, or an error."""
    n_raw = int.from_bytes(data[:3], "little") % _MAX_SIZE + 1
    try:
        raw = decompress_general(data[3:], n_raw)
    except FormatError:
        return
    assert len(raw) == n_raw


def coder(data: bytes) -> None:
    """Any words decode to symbols, or to an error; what was encoded comes back."""
    rng = np.random.default_rng(list(data[:4]))
    n = int(rng.integers(2, 24))
    weights = rng.integers(0, 1 << 20, (_N_SYMBOLS, n)) * (rng.random((_N_SYMBOLS, n)) < 0.5)
    weights[:, 0] += 1  # the engine's are never all 0
    rows = frequencies(weights.astype(np.int64)).astype(np.float32)
    try:
        decoder = TokenDecoder(data[4:])
        symbols = [decoder.decode(row) for row in rows]
    except FormatError:
        return
    assert all(0 <= symbol < n for symbol in symbols)
    tokens = np.array([a * n + b for a, b in zip(symbols[::2], symbols[1::2], strict=True)], dtype=np.int32)
    encoder = TokenEncoder(n)
    encoder.encode(tokens, rows[::2], rows[1::2])
    again = TokenDecoder(encoder.finish())
    assert [again.decode(row) for row in rows] == symbols


def archive(data: bytes) -> None:
    """Whole archives: what `decompress` gives, salvage gives too, and finds nothing lost."""
    try:
        content = decompress(data, _OPTIONS)
    except (FormatError, ModelNotFoundError):
        content = None
    target = io.BytesIO()
    try:
        losses = salvage_stream(io.BytesIO(data), target, _OPTIONS)
    except (FormatError, ModelNotFoundError):
        assert content is None
        return
    if content is not None:
        assert losses == []
        assert target.getvalue() == content


def chunks(data: bytes) -> None:
    """`archive` behind a good header."""
    archive(Header(single=bool(len(data) % 2)).pack() + data)


def table(data: bytes) -> None:
    """`archive` with a table of members whose checksums are right, and one stored chunk."""
    body = Sections(pack_varint(len(data)) + data).pack() if len(data) < 1 << 16 else b""
    archive(Header(single=True, sections=bool(body)).pack() + body + b"\x18\x20\x30\x3ahello\n")


def conditioners(data: bytes) -> None:
    """A set that is read is written the same, and its numbers are finite."""
    try:
        found = ConditionerSet.unpack(data[: len(data) // 4 * 4], _SPEC)
    except (FormatError, ConditionerMissingError):
        return
    assert found.pack(_SPEC) == data[: len(data) // 4 * 4]
    assert describe(found)
    for conditioner in found.conditioners():
        assert conditioner.n_positions <= 256
        for rows in (conditioner.prefix, conditioner.shifts):
            assert rows is None or (rows.shape[1] == _SPEC.width and np.isfinite(rows).all())


def conditioner_file(data: bytes) -> None:
    """A file, or what stands behind a good beginning under the right checksum, is read or refused."""
    good = MAGIC + bytes(32) + data
    for blob in (data, good + zlib.crc32(good).to_bytes(4, "little")):
        try:
            found = unpack_conditioner_file(blob)
        except (FormatError, ConditionerInvalidError):
            continue
        assert unpack_conditioner_file(found.pack()).id == found.id


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(header, sections, records, index, members, payload, coder, archive, chunks, table),
        *(conditioners, conditioner_file),
    )
}
