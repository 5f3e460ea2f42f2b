from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ChecksumError, FormatError, NotAnArchiveError, TruncatedError, VersionError
from llmzip.format.header import Header, crc8

_PLAIN = bytes.fromhex("89 4c 0d 0a 01 01 11 00 00 00 00 00 00 00 00 e9")
_MODEL = bytes.fromhex("89 4c 0d 0a 01 00 11 54 01 02 03 04 05 61 62 5c")
_MODEL_HEADER = Header(window=1024, overlap=256, artefact_id=bytes([1, 2, 3, 4, 5]), canary=b"ab")


def _sealed(data: bytes, at: int, value: int) -> bytes:
    """Change one byte of a header and mend its checksum."""
    body = data[:at] + bytes([value]) + data[at + 1 : 15]
    return body + bytes([crc8(body)])


@pytest.mark.parametrize(
    ("header", "packed"),
    [pytest.param(Header(single=True), _PLAIN, id="plain"), pytest.param(_MODEL_HEADER, _MODEL, id="model")],
)
def test_examples_of_the_specification(header: Header, packed: bytes) -> None:
    """The headers of SPEC.md, section 12, are packed and unpacked as printed."""
    assert header.pack() == packed
    assert Header.unpack(packed) == header


@given(
    st.integers(0, 6),
    st.integers(0, 12),
    st.binary(min_size=5, max_size=5).filter(any),
    st.binary(min_size=2, max_size=2),
    st.booleans(),
    st.booleans(),
)
def test_every_header_comes_back(
    w: int, o: int, artefact_id: bytes, canary: bytes, single: bool, sections: bool
) -> None:
    """Unpacking undoes packing for all fields."""
    window = 32 << w
    header = Header(window, window * o // 16, artefact_id, canary, single, sections)
    assert Header.unpack(header.pack()) == header


@pytest.mark.parametrize("length", range(16))
def test_every_truncation_is_told(length: int) -> None:
    """A beginning of a header is truncated, not foreign."""
    with pytest.raises(TruncatedError) as caught:
        Header.unpack(_MODEL[:length], 100)
    assert (caught.value.offset, caught.value.need, caught.value.have) == (100, 16, length)


@pytest.mark.parametrize("at", range(4, 16))
@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_behind_the_magic_fails_the_checksum(at: int, bit: int) -> None:
    """The checksum covers all bytes, the version too."""
    damaged = bytearray(_MODEL)
    damaged[at] ^= 1 << bit
    with pytest.raises(ChecksumError) as caught:
        Header.unpack(bytes(damaged))
    assert caught.value.offset == 15


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(12), b"\x09L\r\n" + bytes(12), b"\x89L\n" + bytes(13), b"x"])
def test_another_magic_is_not_an_archive(data: bytes) -> None:
    """Foreign bytes, a cleared high bit and converted line ends are refused at once."""
    with pytest.raises(NotAnArchiveError):
        Header.unpack(data)


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (4, 2, "format version"),
        (6, 0x12, "arithmetic version"),
        (6, 0x21, "entropy coder version"),
        *((5, 1 << bit, "flags") for bit in range(3, 8)),
    ],
)
def test_what_is_unknown_is_refused_by_name(at: int, value: int, field: str) -> None:
    """Versions and reserved flags give a VersionError that names the field and its offset."""
    with pytest.raises(VersionError) as caught:
        Header.unpack(_sealed(_MODEL, at, value), 32)
    assert (caught.value.field, caught.value.offset) == (field, 32 + at)


@pytest.mark.parametrize("code", [0x70, 0xF0, 0x0D, 0x6F])
def test_window_codes_out_of_bounds_are_refused(code: int) -> None:
    """A window above 2048 and an overlap above 12/16 are refused."""
    with pytest.raises(FormatError) as caught:
        Header.unpack(_sealed(_MODEL, 7, code))
    assert caught.value.offset == 7


@pytest.mark.parametrize("at", [7, 13, 14])
def test_a_window_or_canary_without_a_model_is_refused(at: int) -> None:
    """Without an artefact id there is nothing they could speak of."""
    with pytest.raises(FormatError):
        Header.unpack(_sealed(_PLAIN, at, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"window": 1000},
        {"window": 4096},
        {"window": 16},
        {"window": 64, "overlap": 5},
        {"window": 64, "overlap": 52},
        {"artefact_id": b"abcd"},
        {"canary": b"abc"},
        {"artefact_id": bytes(5)},
    ],
)
def test_headers_that_cannot_be_packed_are_the_callers_mistake(fields: dict[str, object]) -> None:
    """What the 16 bytes cannot hold is a ValueError."""
    with pytest.raises(ValueError, match="expected"):
        Header(**{"window": 64, "artefact_id": b"abcde", "canary": b"ab", **fields})  # type: ignore[arg-type]
