from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import FormatError
from llmzip.format.varint import pack_varint, unpack_varint


def _unpack(packed: bytes) -> int:
    data = iter(packed)
    return unpack_varint(lambda: next(data), "field", 7)


@given(st.integers(0, 2**63 - 1))
def test_every_value_comes_back_in_the_fewest_bytes(value: int) -> None:
    """Packing takes one byte for every 7 bits, and unpacking undoes it."""
    packed = pack_varint(value)
    assert _unpack(packed) == value
    assert len(packed) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize(
    ("value", "packed"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**63 - 1, "ff" * 8 + "7f")]
)
def test_pinned_bytes(value: int, packed: str) -> None:
    """The bytes are those of SPEC.md, section 1."""
    assert pack_varint(value).hex() == packed


@pytest.mark.parametrize("packed", ["8000", "ff8000", "80" * 9 + "01", "ff" * 9])
def test_longer_forms_are_refused(packed: str) -> None:
    """A value has one form; others are refused with their offset."""
    with pytest.raises(FormatError) as caught:
        _unpack(bytes.fromhex(packed))
    assert caught.value.offset == 7
    assert caught.value.field == "field"


@pytest.mark.parametrize("value", [-1, 2**63])
def test_values_out_of_range_are_the_callers_mistake(value: int) -> None:
    """What 63 bits cannot hold is a ValueError."""
    with pytest.raises(ValueError, match="expected 0 to"):
        pack_varint(value)
