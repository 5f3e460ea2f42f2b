"""What ends a frame of several chunks: a sparse index, a digest, the trailer's length. SPEC.md, section 6."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from llmzip.errors import ChecksumError, FormatError
from llmzip.format.chunk_record import TRAILER_MARK
from llmzip.format.limits import DIGEST_SIZE, INDEX_CHECK_SIZE, MAX_TRAILER_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

LENGTH_SIZE = 2


@dataclass(frozen=True)
class IndexPoint:
    """Where a chunk begins.

    Attributes:
        raw_offset: its first byte in the frame's content.
        offset: its record in the frame, counted from the frame's header.
    """

    raw_offset: int
    offset: int


@dataclass(frozen=True)
class Trailer:
    """The end of a frame of several chunks.

    Attributes:
        points: chunks 64, 128, and so on; the first chunk is number 0.
        digest: first 6 bytes of the SHA-256 of the frame's content.
    """

    points: tuple[IndexPoint, ...]
    digest: bytes

    def pack(self) -> bytes:
        """Write the trailer, mark and length included."""
        body = bytearray(pack_varint(len(self.points) << 2 | TRAILER_MARK))
        last = IndexPoint(0, 0)
        for point in self.points:
            body += pack_varint(point.raw_offset - last.raw_offset)
            body += pack_varint(point.offset - last.offset)
            last = point
        if self.points:
            body += _index_check(bytes(body))
        body += self.digest
        return bytes(body) + _pack_length(len(body))


def read_trailer(reader: ByteReader, n_index: int, mark_offset: int) -> Trailer:
    """Read what follows a trailer's mark.

    Args:
        reader: stands behind the mark, and after it behind the trailer.
        n_index: number of index entries, from the mark; the caller has made sure that it is plausible.
        mark_offset: position of the mark.

    Raises:
        TruncatedError: the archive ends within the trailer.
        ChecksumError: the index is damaged.
        FormatError: the trailer's length is not what it says.
    """
    points = _read_points(reader, n_index)
    digest = reader.read(DIGEST_SIZE, "digest")
    offset = reader.offset
    need = _pack_length(offset - mark_offset)
    have = reader.read(LENGTH_SIZE, "trailer length")
    if have != need:
        raise FormatError(
            f"expected {int.from_bytes(need, 'little')}, found {int.from_bytes(have, 'little')}",
            field="trailer length",
            offset=offset,
            need=need,
            have=have,
        )
    return Trailer(tuple(points), digest)


def _read_points(reader: ByteReader, n_index: int) -> list[IndexPoint]:
    """Read the entries and, if there are any, their check."""
    points = []
    last = IndexPoint(0, 0)
    packed = bytearray(pack_varint(n_index << 2 | TRAILER_MARK))
    for _ in range(n_index):
        deltas = reader.read_varint("index raw offset"), reader.read_varint("index offset")
        packed += b"".join(map(pack_varint, deltas))
        last = IndexPoint(last.raw_offset + deltas[0], last.offset + deltas[1])
        points.append(last)
    if points:
        offset = reader.offset
        check, computed = reader.read(INDEX_CHECK_SIZE, "index check"), _index_check(bytes(packed))
        if check != computed:
            raise ChecksumError.differs("index check", offset, check, computed)
    return points


def _index_check(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(INDEX_CHECK_SIZE, "little")


def _pack_length(length: int) -> bytes:
    """Write the length, or 0 if the field cannot hold it."""
    return (length if length <= MAX_TRAILER_LENGTH else 0).to_bytes(LENGTH_SIZE, "little")
