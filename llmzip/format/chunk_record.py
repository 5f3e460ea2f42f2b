"""The few bytes ahead of each chunk's payload. SPEC.md, section 5."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

from llmzip.errors import ChecksumError, FormatError, LimitError
from llmzip.format.limits import (
    CHECK_SIZE,
    MAX_GENERAL_RAW_LENGTH,
    MAX_MODEL_RATIO,
    MAX_MODEL_RAW_LENGTH,
    MAX_STORED_RAW_LENGTH,
)
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

TRAILER_MARK = 3


class Method(IntEnum):
    """How a chunk's payload gives its raw bytes."""

    STORED = 0
    GENERAL = 1
    MODEL = 2


_MAX_RAW_LENGTH = {
    Method.STORED: MAX_STORED_RAW_LENGTH,
    Method.GENERAL: MAX_GENERAL_RAW_LENGTH,
    Method.MODEL: MAX_MODEL_RAW_LENGTH,
}


@dataclass(frozen=True)
class ChunkRecord:
    """What stands before a payload.

    Attributes:
        method: how the payload is coded.
        raw_length: bytes that the chunk decodes to; 0 only in the one record of an empty archive.
        payload_length: bytes of payload; equal to `raw_length` for a stored chunk, else smaller.
        check: low 3 bytes of the CRC-32 of the raw bytes, and of the payload behind them unless the chunk is
            stored, little-endian.
    """

    method: Method
    raw_length: int
    payload_length: int
    check: bytes

    def __post_init__(self) -> None:
        """Refuse what no record can hold."""
        if not 0 <= self.raw_length <= _MAX_RAW_LENGTH[self.method]:
            raise ValueError(
                f"{self.method.name.lower()} chunk: expected at most {_MAX_RAW_LENGTH[self.method]} bytes, "
                f"found {self.raw_length}"
            )
        if self.method is not Method.STORED and self.payload_length >= self.raw_length:
            raise ValueError(f"expected a payload under {self.raw_length} bytes, found {self.payload_length}")
        if self.method is Method.MODEL and self.raw_length > longest_model_chunk(self.payload_length):
            raise ValueError(f"expected a payload of 1/{MAX_MODEL_RATIO} of the chunk, found {self.payload_length}")

    @classmethod
    def of(cls, method: Method, raw: bytes, payload: bytes) -> ChunkRecord:
        """Make the record of a chunk; the payload of a stored one is `raw`."""
        return cls(method, len(raw), len(payload), chunk_check(method, raw, payload))

    def pack(self) -> bytes:
        """Write the record without its payload."""
        packed = pack_varint(self.raw_length << 2 | self.method)
        if self.method is not Method.STORED:
            packed += self.payload_length.to_bytes(_length_size(self.raw_length), "little")
        return packed + self.check

    @property
    def size(self) -> int:
        """Count the bytes of record and payload."""
        return len(self.pack()) + self.payload_length

    def verify(self, raw: bytes, payload: bytes, offset: int) -> None:
        """Compare decoded bytes, and what they were decoded from, with the record.

        Args:
            raw: what the payload decoded to.
            payload: as it was read.
            offset: position of the record, for the error.

        Raises:
            FormatError: another number of bytes.
            ChecksumError: other bytes.
        """
        if len(raw) != self.raw_length:
            raise FormatError(
                f"expected {self.raw_length} decoded bytes, found {len(raw)}",
                field="chunk",
                offset=offset,
                need=self.raw_length,
                have=len(raw),
            )
        computed = chunk_check(self.method, raw, payload)
        if computed != self.check:
            raise ChecksumError.differs("chunk check", offset, self.check, computed)


@dataclass(frozen=True)
class TrailerMark:
    """The end of the chunk records; the trailer's index of `n_index` entries follows."""

    n_index: int


def read_record(reader: ByteReader, *, single: bool = False) -> ChunkRecord | TrailerMark:
    """Read one record up to its payload, or the mark that begins a trailer.

    Args:
        reader: stands at the record, and after it at the payload.
        single: the record is the only one of its frame, so it may be empty, and may not be a mark.

    Raises:
        TruncatedError: the archive ends within the record.
        LimitError: a raw length above the method's limit, or above what the payload of a model may stand for.
        FormatError: an empty chunk, a payload that is not smaller than its chunk, or a mark in a single frame.
    """
    offset = reader.offset
    packed = reader.read_varint("chunk raw length and method")
    value, kind = packed >> 2, packed & 3
    if kind == TRAILER_MARK:
        if single:
            raise FormatError("expected one chunk, found a trailer", field="chunk method", offset=offset)
        return TrailerMark(value)
    method = Method(kind)
    _check_raw_length(method, value, single, offset)
    payload_length = value if method is Method.STORED else _read_payload_length(reader, value)
    if method is Method.MODEL and value > longest_model_chunk(payload_length):
        raise LimitError.above("model chunk raw length", offset, longest_model_chunk(payload_length), value)
    return ChunkRecord(method, value, payload_length, reader.read(CHECK_SIZE, "chunk check"))


def longest_model_chunk(payload_length: int) -> int:
    """The most bytes that a model's payload may stand for: a short archive must not cost hours to decode."""
    return min(MAX_MODEL_RAW_LENGTH, MAX_MODEL_RATIO * (payload_length + 1))


def chunk_check(method: Method, raw: bytes, payload: bytes) -> bytes:
    """Give the low 3 bytes of the CRC-32 of `raw`, followed by `payload` unless that is `raw` itself.

    The last bits of a coded payload may decide nothing: with the raw bytes alone, damage there would pass.

    >>> chunk_check(Method.STORED, b"123456789", b"123456789").hex()
    '2639f4'
    """
    crc = zlib.crc32(raw)
    if method is not Method.STORED:
        crc = zlib.crc32(payload, crc)
    return (crc & 0xFFFFFF).to_bytes(CHECK_SIZE, "little")


def stored_record_size(raw_length: int) -> int:
    """Count the bytes that a chunk takes as a stored one, record and payload."""
    return len(pack_varint(raw_length << 2 | Method.STORED)) + CHECK_SIZE + raw_length


def _length_size(raw_length: int) -> int:
    """Give the bytes of a payload length: the fewest that hold `raw_length - 1`, its greatest value."""
    return ((raw_length - 1).bit_length() + 7) // 8


def _check_raw_length(method: Method, raw_length: int, single: bool, offset: int) -> None:
    name = f"{method.name.lower()} chunk raw length"
    if raw_length > _MAX_RAW_LENGTH[method]:
        raise LimitError.above(name, offset, _MAX_RAW_LENGTH[method], raw_length)
    if raw_length == 0 and not (single and method is Method.STORED):
        raise FormatError("expected at least 1, found 0", field=name, offset=offset, need=1, have=0)


def _read_payload_length(reader: ByteReader, raw_length: int) -> int:
    offset = reader.offset
    field = "chunk payload length"
    payload_length = int.from_bytes(reader.read(_length_size(raw_length), field), "little")
    if payload_length >= raw_length:
        raise FormatError(
            f"expected fewer than the {raw_length} bytes of the chunk, found {payload_length}",
            field=field,
            offset=offset,
            need=raw_length - 1,
            have=payload_length,
        )
    return payload_length
