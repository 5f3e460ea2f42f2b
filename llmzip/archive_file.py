"""An archive as a file object, for `llmzip.open`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from llmzip.decoding import read_range
from llmzip.encoding import StreamCompressor
from llmzip.errors import LlmzipError
from llmzip.format import FrameIndex
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.resources import check_size

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def open(
    path: str | os.PathLike[str],
    mode: Literal["rb", "wb"] = "rb",
    options: CompressOptions | DecompressOptions | None = None,
) -> io.BufferedReader | ArchiveWriter:
    """Open an archive as a file of its content: readable and seekable (`rb`), or writable (`wb`)."""
    if mode == "rb":
        if options is not None and not isinstance(options, DecompressOptions):
            raise TypeError("options: expected DecompressOptions for mode rb")
        return io.BufferedReader(ArchiveReader(Path(path).open("rb"), options or DecompressOptions()))
    if mode != "wb":
        raise ValueError(f"mode: expected rb or wb, found {mode!r}")
    if options is not None and not isinstance(options, CompressOptions):
        raise TypeError("options: expected CompressOptions for mode wb")
    return ArchiveWriter(Path(path).open("wb"), options or CompressOptions())


class ArchiveReader(io.RawIOBase):
    """Reads the content of an archive; `seek` costs nothing until the next read."""

    def __init__(self, file: BinaryIO, options: DecompressOptions) -> None:
        self._file = file
        self._options = options
        self._position = 0
        self._rest = b""
        self._pieces: Iterator[bytes] = iter(())
        self._error: LlmzipError | None = None
        try:
            self._length = FrameIndex(file).raw_length
            check_size(self._length, options)
        except BaseException:
            file.close()
            raise
        self._start_at(0)

    def _start_at(self, position: int) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._position = position
        self._rest, self._error = b"", None
        self._pieces = read_range(self._file, position, self._length, self._options)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in the content."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position in the content, also beyond its end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"seek: expected a position of at least 0, found {base + offset}")
        if base + offset != self._position:
            self._start_at(base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as the chunk at hand goes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._rest:
            if self._error is not None:
                raise self._error
            try:
                piece = next(self._pieces, None)
            except LlmzipError as error:
                # Or the next call would take it for the end.
                self._error = error
                raise
            if piece is None:
                return 0
            self._rest = piece
        n = min(len(view), len(self._rest))
        view[:n], self._rest = self._rest[:n], self._rest[n:]
        self._position += n
        return n

    def close(self) -> None:
        """Stop decoding and close the archive."""
        if not self.closed:
            self._start_at(self._position)
            self._file.close()
        super().close()


class ArchiveWriter(io.RawIOBase):
    """Compresses what is written; `close` ends the archive."""

    def __init__(self, file: BinaryIO, options: CompressOptions) -> None:
        self._file = file
        try:
            self._compressor = StreamCompressor(file, options)
        except BaseException:
            file.close()
            raise

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Take in bytes of the content."""
        content = bytes(data)
        self._compressor.write(content)
        return len(content)

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._abandon()
        super().__exit__(*error)

    def close(self) -> None:
        """Code what is left, write the end, and close the file; no end where a write has failed."""
        if not self.closed and not self._file.closed:
            with self._file, self._compressor:
                if not self._compressor.broken:
                    self._compressor.finish()
        super().close()

    def _abandon(self) -> None:
        """After an error the archive stays without an end, so that no reader takes it for whole."""
        with self._file, self._compressor:
            pass
