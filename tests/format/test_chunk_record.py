from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ChecksumError, FormatError, LimitError, TruncatedError
from llmzip.format.chunk_record import ChunkRecord, Method, TrailerMark, read_record
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint


def _read(packed: bytes, *, single: bool = False) -> ChunkRecord | TrailerMark:
    return read_record(ByteReader(io.BytesIO(packed)), single=single)


def test_the_example_of_the_specification() -> None:
    """The record of SPEC.md, section 12, is packed and read as printed."""
    record = ChunkRecord(Method.MODEL, 32768, 5000, b"\1\2\3")
    assert record.pack().hex(" ") == "82 80 08 88 13 01 02 03"
    assert _read(record.pack()) == record


@given(
    st.sampled_from([Method.GENERAL, Method.MODEL]),
    st.integers(1, 1 << 20),
    st.integers(0),
    st.binary(min_size=3, max_size=3),
)
def test_every_record_comes_back(method: Method, raw_length: int, payload: int, check: bytes) -> None:
    """Reading undoes packing, and every truncation is told."""
    least = raw_length // 1024 if method is Method.MODEL else 0
    record = ChunkRecord(method, raw_length, max(least, payload % raw_length), check)
    assert _read(record.pack()) == record
    for length in range(len(record.pack())):
        with pytest.raises(TruncatedError):
            _read(record.pack()[:length])


@pytest.mark.parametrize(
    ("raw_length", "size"), [(1, 0), (2, 1), (256, 1), (257, 2), (65536, 2), (65537, 3), (1 << 20, 3)]
)
def test_the_payload_length_takes_the_fewest_bytes(raw_length: int, size: int) -> None:
    """Its width follows from the raw length, as SPEC.md, section 5, says."""
    packed = ChunkRecord(Method.GENERAL, raw_length, 0, bytes(3)).pack()
    assert len(packed) == len(pack_varint(raw_length * 4)) + size + 3


@pytest.mark.parametrize(("method", "limit"), [(0, 2**26 - 1), (1, 2**26 - 1), (2, 2**20)])
def test_a_raw_length_above_the_limit_is_refused(method: int, limit: int) -> None:
    """Each method has its own limit, and the error tells it."""
    with pytest.raises(LimitError) as caught:
        _read(pack_varint((limit + 1) * 4 + method) + bytes(8))
    assert (caught.value.need, caught.value.have, caught.value.offset) == (limit, limit + 1, 0)


@pytest.mark.parametrize(("raw_length", "payload_length"), [(1025, 0), (2049, 1), (1 << 20, 1022)])
def test_a_model_chunk_that_is_long_for_its_payload_is_refused(raw_length: int, payload_length: int) -> None:
    """A short archive does not cost hours to decode; the writer makes no such chunk."""
    size = ((raw_length - 1).bit_length() + 7) // 8
    with pytest.raises(LimitError) as caught:
        _read(pack_varint(raw_length * 4 + 2) + payload_length.to_bytes(size, "little") + bytes(3))
    assert (caught.value.need, caught.value.have) == (1024 * (payload_length + 1), raw_length)
    with pytest.raises(ValueError, match="1/1024"):
        ChunkRecord(Method.MODEL, raw_length, payload_length, bytes(3))
    longest = ChunkRecord(Method.MODEL, 1024 * (payload_length + 1), payload_length, bytes(3))
    assert _read(longest.pack()) == longest


@pytest.mark.parametrize("payload_length", [300, 301, 65535])
def test_a_payload_as_large_as_its_chunk_is_refused(payload_length: int) -> None:
    """Such a chunk would have been stored."""
    with pytest.raises(FormatError) as caught:
        _read(pack_varint(300 * 4 + 2) + payload_length.to_bytes(2, "little") + bytes(3))
    assert (caught.value.need, caught.value.have, caught.value.offset) == (299, payload_length, 2)


@pytest.mark.parametrize(("packed", "single"), [("00", False), ("01", True), ("02", True), ("03", True)])
def test_empty_chunks_and_marks_out_of_place_are_refused(packed: str, single: bool) -> None:
    """A single stored chunk alone may be empty, and no trailer follows it."""
    with pytest.raises(FormatError):
        _read(bytes.fromhex(packed) + bytes(3), single=single)


def test_a_trailer_mark_gives_its_number_of_entries() -> None:
    """Method 3 begins the trailer."""
    assert _read(pack_varint(5 * 4 + 3)) == TrailerMark(5)


def test_decoded_bytes_are_compared_with_length_and_check() -> None:
    """Other bytes, or another number of them, are refused with the record's offset."""
    record = ChunkRecord.of(Method.MODEL, b"hello", b"ab")
    record.verify(b"hello", b"ab", 40)
    with pytest.raises(FormatError) as length:
        record.verify(b"hell", b"ab", 40)
    with pytest.raises(ChecksumError) as check:
        record.verify(b"jello", b"ab", 40)
    with pytest.raises(ChecksumError):
        record.verify(b"hello", b"ac", 40)
    assert (length.value.need, length.value.have, length.value.offset) == (5, 4, 40)
    assert (check.value.need, check.value.offset) == (record.check, 40)


@pytest.mark.parametrize(
    ("method", "raw_length", "payload_length"),
    [(Method.MODEL, 5, 5), (Method.MODEL, 1 << 21, 4), (Method.GENERAL, -1, -2)],
)
def test_records_that_cannot_be_read_back_are_the_callers_mistake(
    method: Method, raw_length: int, payload_length: int
) -> None:
    """What a reader would refuse is a ValueError to the writer."""
    with pytest.raises(ValueError, match="expected"):
        ChunkRecord(method, raw_length, payload_length, bytes(3))
