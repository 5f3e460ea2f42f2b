"""Compressing and decompressing piece by piece, however the data are split: for sockets and other programs."""

from __future__ import annotations

import io
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Self

from llmzip.archive import decompress_stream
from llmzip.encoding import StreamCompressor
from llmzip.options import CompressOptions, DecompressOptions

# Bytes that wait for the decoder, and for whoever takes its content, before the other side waits too.
_MAX_WAITING = 4 << 20


class _Closed(ABC):
    """Closed at the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let threads and processes go."""


class Compressor(_Closed):
    """Makes an archive of data that come in pieces. Use it in a `with` block, or call `finish` or `close`.

    >>> compressor = Compressor()
    >>> archive = compressor.compress(b"To be, ") + compressor.compress(b"or not to be") + compressor.finish()

    Args:
        options: model and sizes.

    Raises:
        ModelNotFoundError: there is no such model.
        ConfigError: sizes that the model or the format does not allow.
    """

    def __init__(self, options: CompressOptions | None = None) -> None:
        self._target = io.BytesIO()
        self._stream = StreamCompressor(self._target, options or CompressOptions())
        self._finished = False
        weakref.finalize(self, self._stream.close)

    def compress(self, data: bytes) -> bytes:
        """Take in data; what of the archive is ready, often nothing."""
        self._expect_open()
        self._stream.write(data)
        return self._take()

    def finish(self) -> bytes:
        """The rest of the archive. Nothing can be added afterwards."""
        self._expect_open()
        self._finished = True
        with self._stream:
            self._stream.finish()
        return self._take()

    def close(self) -> None:
        """Let threads and processes go; without `finish` before, there is no archive."""
        self._finished = True
        self._stream.close()

    def _expect_open(self) -> None:
        if self._finished:
            raise ValueError("compressor: expected one that is not finished")

    def _take(self) -> bytes:
        data = self._target.getvalue()
        self._target.seek(0)
        self._target.truncate()
        return data


class Decompressor(_Closed):
    """Restores the content of an archive that comes in pieces. Use it in a `with` block, or call `finish` or `close`.

    A thread decodes what has come so far, so that how much a call gives is a matter of time; all calls together give
    the content. An error may be told by a later call than the one that brought it.

    Args:
        options: where to find the model.
    """

    def __init__(self, options: DecompressOptions | None = None) -> None:
        self._pipe = _Pipe()
        # Nothing in the thread refers to this object, so that it ends when nobody does.
        weakref.finalize(self, self._pipe.close)
        arguments = (self._pipe, options or DecompressOptions())
        self._thread = threading.Thread(target=_decompress, args=arguments, daemon=True)
        self._thread.start()

    def decompress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take in more of the archive; what of the content is ready.

        Raises:
            FormatError: the archive is damaged.
            ModelError: the model that it needs is not there, or computes something else.
            ValueError: `finish` or `close` was called.
        """
        return self._pipe.exchange(data)

    def finish(self) -> bytes:
        """The rest of the content, after all of the archive was given.

        Raises:
            FormatError: the archive is damaged, or its end is missing.
            ModelError: as for `decompress`.
            ValueError: `finish` or `close` was called.
        """
        content = self._pipe.exchange(None)
        self._thread.join()
        return content

    def close(self) -> None:
        """Stop decoding; what was not taken is lost."""
        self._pipe.close()
        self._thread.join()


def _decompress(pipe: _Pipe, options: DecompressOptions) -> None:
    try:
        decompress_stream(pipe, pipe, options)  # type: ignore[arg-type]
    except BaseException as error:  # noqa: BLE001 (whoever waits for the content raises it)
        pipe.end(error)
    else:
        pipe.end(None)


class _Pipe:
    """What the decoder's thread reads from and writes to; the other side exchanges data for content."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._data: deque[bytes] = deque()
        self._content: list[bytes] = []
        self._n_data = self._n_content = 0
        self._all_given = self._ended = self._closed = False
        self._error: BaseException | None = None

    def exchange(self, data: bytes | bytearray | memoryview | None) -> bytes:
        """Give data, or that there are no more, for content: some, or all to the end."""
        with self._changed:
            if self._all_given or self._closed:
                raise ValueError("decompressor: expected one that is not finished")
            self._all_given = data is None
            if data:
                self._data.append(bytes(data))
                self._n_data += len(data)
            self._changed.notify_all()
            taken: list[bytes] = []
            while True:
                taken += self._take()
                if self._ended or (not self._all_given and self._n_data <= _MAX_WAITING):
                    break
                self._changed.wait()
            # What was decoded before damage is given first; the next call tells of the damage.
            if self._error is not None and (self._all_given or not taken):
                raise self._error
            return b"".join(taken)

    def _take(self) -> list[bytes]:
        taken, self._content, self._n_content = self._content, [], 0
        self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Have the decoder's next read or write fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """The decoder has stopped."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def seekable(self) -> bool:
        """False: what was read is gone."""
        return False

    def read(self, n: int) -> bytes:
        """At most `n` bytes, at least one but at the end."""
        with self._changed:
            while not (self._data or self._all_given or self._closed):
                self._changed.wait()
            self._expect_open()
            if not self._data:
                return b""
            piece = self._data.popleft()
            if len(piece) > n:
                self._data.appendleft(piece[n:])
                piece = piece[:n]
            self._n_data -= len(piece)
            self._changed.notify_all()
            return piece

    def write(self, content: bytes) -> int:
        """Hand over content, once there is room."""
        with self._changed:
            while self._n_content > _MAX_WAITING and not self._closed:
                self._changed.wait()
            self._expect_open()
            self._content.append(content)
            self._n_content += len(content)
            self._changed.notify_all()
            return len(content)

    def _expect_open(self) -> None:
        if self._closed:
            raise BrokenPipeError("decompressor: closed")
