"""The optional sections between header and chunks. SPEC.md, section 4.

This reader knows the member table, passes over those that may be skipped, and refuses the others by name.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from llmzip.errors import ChecksumError, FormatError, LimitError, VersionError
from llmzip.format.limits import MAX_SECTION_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

_END = 0
_MAY_BE_SKIPPED = 0x80
_MEMBER_TABLE = 2
_NAMES = {1: "conditioner", 3: "comment"}


class Sections(NamedTuple):
    """The bodies of the sections that this reader knows.

    Attributes:
        member_table: see `llmzip.members`; None where there is none.
    """

    member_table: bytes | None = None

    def pack(self) -> bytes:
        """Write them as they stand behind a header; nothing where there are none.

        Raises:
            ValueError: a body above 1 MiB.
        """
        if self.member_table is None:
            return b""
        if len(self.member_table) > MAX_SECTION_LENGTH:
            raise ValueError(f"section: expected at most {MAX_SECTION_LENGTH} bytes, found {len(self.member_table)}")
        packed = bytes([_MEMBER_TABLE]) + pack_varint(len(self.member_table)) + self.member_table + bytes([_END])
        return packed + zlib.crc32(packed).to_bytes(4, "little")


def read_sections(reader: ByteReader) -> Sections:
    """Read the sections, passing over those that may be skipped.

    Raises:
        VersionError: a section without which the archive cannot be decoded, and that this reader does not know.
        ChecksumError: the sections are damaged.
        LimitError: a section above 1 MiB.
        FormatError: the same section twice, or the reserved type 128.
        TruncatedError: the archive ends within the sections.
    """
    offsets: dict[int, int] = {}
    bodies: dict[int, bytes] = {}
    crc = 0
    while (kind := _read_kind(reader, offsets)) != _END:
        length = _read_length(reader)
        bodies[kind] = reader.read(length, "section body")
        crc = zlib.crc32(bytes([kind]) + pack_varint(length) + bodies[kind], crc)
    _check_crc(reader, zlib.crc32(bytes([_END]), crc))
    _refuse_needed(offsets)
    return Sections(bodies.get(_MEMBER_TABLE))


def _read_kind(reader: ByteReader, offsets: dict[int, int]) -> int:
    """Read a section's type and note where it stands."""
    offset = reader.offset
    kind = reader.read(1, "section type")[0]
    number = kind & ~_MAY_BE_SKIPPED
    if kind == _MAY_BE_SKIPPED:
        raise FormatError("128 is reserved", field="section type", offset=offset, have=kind)
    if any(number == seen & ~_MAY_BE_SKIPPED for seen in offsets):
        raise FormatError(
            f"expected each type once, found {number} again", field="section type", offset=offset, have=kind
        )
    if kind != _END:
        offsets[kind] = offset
    return kind


def _read_length(reader: ByteReader) -> int:
    offset = reader.offset
    length = reader.read_varint("section length")
    if length > MAX_SECTION_LENGTH:
        raise LimitError.above("section length", offset, MAX_SECTION_LENGTH, length)
    return length


def _check_crc(reader: ByteReader, crc: int) -> None:
    offset = reader.offset
    stored = reader.read(4, "section checksum")
    computed = crc.to_bytes(4, "little")
    if stored != computed:
        raise ChecksumError.differs("section checksum", offset, stored, computed)


def _refuse_needed(offsets: dict[int, int]) -> None:
    for kind, offset in offsets.items():
        if not kind & _MAY_BE_SKIPPED and kind != _MEMBER_TABLE:
            name = _NAMES.get(kind, "unknown")
            raise VersionError(f"section {kind} ({name}): not supported by this reader", offset=offset, have=kind)
