"""The optional sections between header and chunks. SPEC.md, section 4.

This reader knows conditioner and member table, passes over those that may be skipped, and refuses the others by name.
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
_CONDITIONER, _MEMBER_TABLE = 1, 2
_NAMES = {3: "comment"}


class Sections(NamedTuple):
    """The bodies of the sections that this reader knows.

    Attributes:
        member_table: see `llmzip.members`; None where there is none.
        conditioner: see `llmzip.conditioning`; None where there is none.
    """

    member_table: bytes | None = None
    conditioner: bytes | None = None

    def pack(self) -> bytes:
        """Write them as they stand behind a header; nothing where there are none.

        Raises:
            ValueError: a body above 1 MiB.
        """
        parts = [_pack(_CONDITIONER, self.conditioner), _pack(_MEMBER_TABLE, self.member_table)]
        if not any(parts):
            return b""
        packed = b"".join(parts) + bytes([_END])
        return packed + zlib.crc32(packed).to_bytes(4, "little")


def _pack(kind: int, body: bytes | None) -> bytes:
    if body is None:
        return b""
    if len(body) > MAX_SECTION_LENGTH:
        raise ValueError(f"section: expected at most {MAX_SECTION_LENGTH} bytes, found {len(body)}")
    return bytes([kind]) + pack_varint(len(body)) + body


def read_sections(reader: ByteReader) -> Sections:
    """Read the sections, passing over those that may be skipped.

    Raises:
        VersionError: a section without which the archive cannot be decoded, and that this reader does not know.
        ChecksumError: the sections are damaged.
        LimitError: a section above 1 MiB.
        FormatError: the same section twice, or the reserved type 128.
        TruncatedError: the archive ends within the sections.
    """
    found = _read_bodies(reader)
    if found.stored != found.computed:
        raise ChecksumError.differs("section checksum", reader.offset - 4, found.stored, found.computed)
    _refuse_needed(found.offsets)
    return found.sections


def read_damaged_sections(reader: ByteReader) -> tuple[Sections, bool]:
    """Read sections whatever their checksum says, and whether it says that they are damaged.

    Raises:
        VersionError: they are whole, and one of them is needed and not known.
        FormatError: they do not even end where they say.
    """
    found = _read_bodies(reader)
    damaged = found.stored != found.computed
    if not damaged:
        _refuse_needed(found.offsets)
    return found.sections, damaged


class _Found(NamedTuple):
    """Sections, where each type stands, and their checksum as it is written and as it should be."""

    sections: Sections
    offsets: dict[int, int]
    stored: bytes
    computed: bytes


def _read_bodies(reader: ByteReader) -> _Found:
    offsets: dict[int, int] = {}
    bodies: dict[int, bytes] = {}
    crc = 0
    while (kind := _read_kind(reader, offsets)) != _END:
        length = _read_length(reader)
        bodies[kind] = reader.read(length, "section body")
        crc = zlib.crc32(bytes([kind]) + pack_varint(length) + bodies[kind], crc)
    crc = zlib.crc32(bytes([_END]), crc)
    sections = Sections(bodies.get(_MEMBER_TABLE), bodies.get(_CONDITIONER))
    return _Found(sections, offsets, reader.read(4, "section checksum"), crc.to_bytes(4, "little"))


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


def _refuse_needed(offsets: dict[int, int]) -> None:
    for kind, offset in offsets.items():
        if not kind & _MAY_BE_SKIPPED and kind not in (_CONDITIONER, _MEMBER_TABLE):
            name = _NAMES.get(kind, "unknown")
            raise VersionError(f"section {kind} ({name}): not supported by this reader", offset=offset, have=kind)
