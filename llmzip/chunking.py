"""Where to cut the input into chunks.

A cut behind a line end keeps lines whole, which a model predicts better; a cut between two UTF-8 characters keeps
characters whole. How a chunk is coded is the business of `llmzip.codec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

DEFAULT_CHUNK_SIZE = 32768

_MAX_UTF8_SIZE = 4


def split(source: BinaryIO, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Iterator[bytes]:
    """Cut a file or pipe into chunks.

    Each chunk ends behind the last line end in the last quarter of `chunk_size` bytes, else before the last UTF-8
    character that does not fit, else after `chunk_size` bytes. The cuts depend on the bytes alone, never on how many
    of them a read gives at once, and at most two chunks are in memory.

    Args:
        source: opened for reading in binary mode.
        chunk_size: greatest size of a chunk, at least 1.

    Returns:
        Chunks of 1 to `chunk_size` bytes that join to the content of `source`.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk size: expected at least 1, found {chunk_size}")
    rest = b""
    while True:
        # One byte more than a chunk tells whether the chunk is the last one.
        rest += _read(source, chunk_size + 1 - len(rest))
        if len(rest) <= chunk_size:
            break
        cut = find_cut(rest[:chunk_size], rest[chunk_size])
        yield rest[:cut]
        rest = rest[cut:]
    if rest:
        yield rest


def find_cut(data: bytes, next_byte: int) -> int:
    """Give the number of bytes of `data` that form a chunk.

    Args:
        data: a full chunk's worth of bytes, at least one.
        next_byte: the byte that follows.
    """
    size = len(data)
    line_end = data.rfind(b"\n", size - size // 4)
    if line_end >= 0:
        return line_end + 1
    if not _continues(next_byte):
        return size
    for cut in range(size - 1, max(size - _MAX_UTF8_SIZE, 0), -1):
        if not _continues(data[cut]):
            return cut
    return size


def _continues(byte: int) -> bool:
    """Tell whether a byte can only stand within a UTF-8 character."""
    return byte & 0xC0 == 0x80


def _read(source: BinaryIO, n: int) -> bytes:
    """Read `n` bytes, or all that are left if those are fewer; a pipe may give them in pieces."""
    pieces = []
    while n and (piece := source.read(n)):
        pieces.append(piece)
        n -= len(piece)
    return b"".join(pieces)
