from __future__ import annotations

import io
import zlib

import pytest

from llmzip.errors import ChecksumError, FormatError, LimitError, TruncatedError, VersionError
from llmzip.format import Header, read_frames
from llmzip.format.reader import ByteReader
from llmzip.format.sections import Sections, read_sections
from llmzip.format.varint import pack_varint


def _sections(*sections: tuple[int, bytes]) -> bytes:
    packed = b"".join(bytes([kind]) + pack_varint(len(body)) + body for kind, body in sections) + b"\0"
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def _skip(packed: bytes) -> int:
    reader = ByteReader(io.BytesIO(packed))
    read_sections(reader)
    return reader.offset


def test_sections_that_may_be_skipped_are_skipped() -> None:
    """A reader passes over what it does not know if bit 7 allows it."""
    packed = _sections((0x83, b"{}"), (0xFF, bytes(300)))
    assert _skip(packed + b"rest") == len(packed)


def test_a_frame_with_a_comment_is_read() -> None:
    """The chunk behind the sections is found."""
    blob = (
        Header(single=True, sections=True).pack() + _sections((0x83, b"{}")) + bytes.fromhex("18 20303a") + b"hello\n"
    )
    (frame,) = read_frames(io.BytesIO(blob))
    assert frame.header.sections
    assert frame.raw_length == 6


@pytest.mark.parametrize(("kind", "name"), [(3, "comment"), (9, "unknown")])
def test_needed_sections_are_refused_by_name(kind: int, name: str) -> None:
    """A section that must not be skipped gives a VersionError with its name and offset."""
    with pytest.raises(VersionError) as caught:
        _skip(_sections((0x84, b"abc"), (kind, b"")))
    assert str(caught.value) == f"section {kind} ({name}): not supported by this reader at offset 5"


def test_damage_is_told_before_an_unknown_section() -> None:
    """A flipped bit in a type is damage, not a newer format."""
    packed = bytearray(_sections((0x83, b"{}")))
    packed[0] ^= 0x80
    with pytest.raises(ChecksumError):
        _skip(bytes(packed))


@pytest.mark.parametrize("sections", [((0x80, b""),), ((0x83, b""), (0x83, b"")), ((0x83, b""), (0x03, b""))])
def test_the_reserved_type_and_repetitions_are_refused(sections: tuple[tuple[int, bytes], ...]) -> None:
    """Type 128 has no meaning, and each number stands once."""
    with pytest.raises(FormatError):
        _skip(_sections(*sections))


def test_a_section_above_the_limit_is_refused() -> None:
    """The limit holds before the body is read."""
    with pytest.raises(LimitError):
        _skip(b"\x83" + pack_varint((1 << 20) + 1))


def test_every_truncation_is_told() -> None:
    """Sections cut anywhere are truncated."""
    packed = _sections((0x83, b"{}"))
    for length in range(len(packed)):
        with pytest.raises(TruncatedError):
            _skip(packed[:length])


@pytest.mark.parametrize("table", [b"", b"a table", bytes(1 << 20)])
def test_a_member_table_comes_back(table: bytes) -> None:
    """Up to 1 MiB, and its bytes are those of the document; beside it stands what may be skipped."""
    packed = Sections(table).pack()
    assert packed == _sections((2, table))
    assert read_sections(ByteReader(io.BytesIO(packed))) == Sections(table)
    both = _sections((0x83, b"{}"), (2, table))
    assert read_sections(ByteReader(io.BytesIO(both))).member_table == table


def test_no_sections_take_no_bytes() -> None:
    """Without a table nothing is written."""
    assert Sections().pack() == b""


def test_a_table_above_the_limit_is_not_written() -> None:
    """What no reader would take, no writer makes."""
    with pytest.raises(ValueError, match="at most 1048576 bytes, found 1048577"):
        Sections(bytes((1 << 20) + 1)).pack()
