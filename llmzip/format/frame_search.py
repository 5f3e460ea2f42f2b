"""Where frames begin, and records end, in bytes that may be anything."""

from __future__ import annotations

import mmap
from typing import BinaryIO

from llmzip.errors import FormatError
from llmzip.format.chunk_record import TRAILER_MARK, Method
from llmzip.format.container import FrameReader
from llmzip.format.header import Header
from llmzip.format.limits import CHECK_SIZE, HEADER_SIZE, MAGIC
from llmzip.format.reader import ByteReader

Data = bytes | mmap.mmap

# Of the varint of a raw length: four bytes hold the longest.
_MAX_SHIFT = 21


def find_frame(data: Data, file: BinaryIO, start: int) -> int:
    """Where the next whole frame begins; the end if there is none. A header alone may be that of a stored archive."""
    while (start := find_header(data, start)) < len(data):
        file.seek(start)
        reader = ByteReader(file, start)
        try:
            frame = FrameReader(reader, Header.unpack(reader.read(HEADER_SIZE, "header")), 0)
            for _ in frame.places():
                pass
        except FormatError:
            start += 1
            continue
        if reader.offset == len(data) or data[reader.offset : reader.offset + len(MAGIC)] == MAGIC:
            return start
        start += 1
    return len(data)


def find_header(data: Data, start: int) -> int:
    """Where the next header stands from `start` on; the end if there is none."""
    while (start := data.find(MAGIC, start)) >= 0:
        try:
            Header.unpack(data[start : start + HEADER_SIZE], start)
        except FormatError:
            start += 1
        else:
            return start
    return len(data)


def map_file(file: BinaryIO) -> Data:
    """All bytes of a file, without reading them where the system can."""
    file.seek(0)
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return file.read()


def stop_of_record(data: Data, offset: int) -> int:
    """Where a record that stands at a place would end; 0 if there is none. As `read_record`, but ten times as fast."""
    value = shift = 0
    while offset < len(data) and shift <= _MAX_SHIFT:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            break
    method, raw_length = value & 3, value >> 2
    if method == TRAILER_MARK or raw_length == 0:
        return 0
    if method == Method.STORED:
        return offset + CHECK_SIZE + raw_length
    n_length = ((raw_length - 1).bit_length() + 7) // 8
    return offset + n_length + CHECK_SIZE + int.from_bytes(data[offset : offset + n_length], "little")
