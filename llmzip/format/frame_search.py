"""Where frames begin in bytes that may be anything."""

from __future__ import annotations

import mmap
from typing import BinaryIO

from llmzip.errors import FormatError
from llmzip.format.container import FrameReader
from llmzip.format.header import Header
from llmzip.format.limits import HEADER_SIZE, MAGIC
from llmzip.format.reader import ByteReader

Data = bytes | mmap.mmap


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
