"""Unsigned integers of variable length: 7 bits a byte, lowest first, top bit set on all bytes but the last."""

from __future__ import annotations

from collections.abc import Callable

from llmzip.errors import FormatError
from llmzip.format.limits import MAX_VARINT_SIZE


def pack_varint(value: int) -> bytes:
    """Write an integer in the fewest bytes.

    Args:
        value: 0 to `2**63 - 1`.

    Source:
        llmzip/format/SPEC.md, section 1.

    >>> pack_varint(300).hex()
    'ac02'
    """
    if not 0 <= value < 1 << (7 * MAX_VARINT_SIZE):
        raise ValueError(f"varint: expected 0 to 2**63 - 1, found {value}")
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def unpack_varint(next_byte: Callable[[], int], field: str, offset: int | None) -> int:
    """Read an integer that `pack_varint` wrote; each value has one form only, any other is refused.

    Args:
        next_byte: gives the next byte, 0 to 255.
        field: name of the field, for the error.
        offset: position of the first byte, for the error, if it has one in the archive.

    Raises:
        FormatError: more than 9 bytes, or a last byte of zero.
    """
    value = 0
    for i in range(MAX_VARINT_SIZE):
        byte = next_byte()
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise FormatError(
                    "expected the shortest form of a varint, found a last byte of 0", field=field, offset=offset
                )
            return value
    raise FormatError(
        f"expected a varint of at most {MAX_VARINT_SIZE} bytes, found a longer one", field=field, offset=offset
    )
