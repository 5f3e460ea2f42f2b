from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest

from llmzip.errors import TruncatedError
from llmzip.format.reader import ByteReader

_DATA = bytes(range(200))


@contextmanager
def _pipe(data: bytes) -> Iterator[BinaryIO]:
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        yield file


@contextmanager
def _memory(data: bytes) -> Iterator[BinaryIO]:
    yield io.BytesIO(data)


@pytest.mark.parametrize("opened", [_pipe, _memory], ids=["pipe", "memory"])
def test_reading_and_skipping_count_the_offset(opened: object) -> None:
    """Fields come in order from pipes and files alike."""
    assert callable(opened)
    with opened(_DATA) as file:
        reader = ByteReader(file)
        assert reader.read(3, "a") == _DATA[:3]
        reader.skip(10, "b")
        assert reader.offset == 13
        assert reader.read_varint("c") == 13
        assert reader.read_up_to(1000) == _DATA[14:]
        assert reader.offset == 200


@pytest.mark.parametrize("opened", [_pipe, _memory], ids=["pipe", "memory"])
def test_too_few_bytes_are_told_by_field_offset_need_and_have(opened: object) -> None:
    """A field beyond the end gives a TruncatedError with its facts, read or skipped."""
    assert callable(opened)
    for take in (ByteReader.read, ByteReader.skip):
        with opened(_DATA) as file:
            reader = ByteReader(file)
            reader.read(190, "first")
            with pytest.raises(TruncatedError) as caught:
                take(reader, 1 << 40, "payload")
        error = caught.value
        assert (error.field, error.offset, error.need, error.have) == ("payload", 190, 1 << 40, 10)
        assert str(error) == "payload: need 1099511627776 bytes, 10 left at offset 190"


def test_an_offset_can_be_given() -> None:
    """A reader may begin in the middle of an archive."""
    file = io.BytesIO(_DATA)
    file.seek(50)
    reader = ByteReader(file, 50)
    assert reader.read(1, "a") == bytes([50])
    assert reader.offset == 51
