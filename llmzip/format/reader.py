"""Reading fields from a file or pipe: counts the offset, and never takes memory for bytes that are not there."""

from __future__ import annotations

import os
from typing import BinaryIO

from llmzip.errors import TruncatedError
from llmzip.format.varint import unpack_varint

_PIECE = 1 << 20


class ByteReader:
    """Takes fields one after another from a binary file.

    Args:
        file: a file, pipe or socket opened for reading in binary mode. It is read from where it stands.
        offset: the position in the archive at which `file` stands.
    """

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file = file
        self._end = _end_of(file)
        self.offset = offset

    def read(self, n: int, field: str) -> bytes:
        """Take exactly `n` bytes.

        Raises:
            TruncatedError: fewer are left.
        """
        offset = self.offset
        data = self.read_up_to(n)
        if len(data) < n:
            raise TruncatedError.short(field, offset, n, len(data))
        return data

    def read_up_to(self, n: int) -> bytes:
        """Take `n` bytes, or all that are left if those are fewer."""
        pieces = []
        n_missing = n
        while n_missing and (piece := self._file.read(min(n_missing, _PIECE))):
            pieces.append(piece)
            n_missing -= len(piece)
        self.offset += n - n_missing
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_varint(self, field: str) -> int:
        """Take a varint."""
        return unpack_varint(lambda: self.read(1, field)[0], field, self.offset)

    def skip(self, n: int, field: str) -> None:
        """Pass over exactly `n` bytes, without reading them where the file can seek.

        Raises:
            TruncatedError: fewer are left.
        """
        if self._end is None:
            n_done = self._read_away(n)
        else:
            n_done = min(n, self._end - self._file.tell())
            self._file.seek(n_done, os.SEEK_CUR)
        if n_done < n:
            raise TruncatedError.short(field, self.offset, n, n_done)
        self.offset += n

    def _read_away(self, n: int) -> int:
        n_done = 0
        while n_done < n and (piece := self._file.read(min(n - n_done, _PIECE))):
            n_done += len(piece)
        return n_done


def _end_of(file: BinaryIO) -> int | None:
    """Give the position of the file's end, or `None` for a pipe."""
    if not file.seekable():
        return None
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end
