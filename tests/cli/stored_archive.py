"""llmzip without a model, so that the commands are tested alone: every chunk that it writes is stored.

`LLMZIP_FAULT` makes compress fail after its first chunk: `full` as a full disk does, `sleep` never ends.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

import llmzip.archive
import llmzip.packing
from llmzip.chunking import split
from llmzip.encoding import StreamCompressor
from llmzip.format import FrameWriter, Header, Method, Sections
from llmzip.options import CompressOptions


class StoringCompressor(StreamCompressor):
    """In place of `llmzip.encoding.StreamCompressor`."""

    def __init__(
        self,
        target: BinaryIO,
        options: CompressOptions,
        progress: Callable[[int, int], None] | None = None,
        sections: Sections | None = None,
        journal: BinaryIO | None = None,
    ) -> None:
        del journal  # it keeps what a model made, and here is none
        self._writer = FrameWriter(target, Header(), sections or Sections())
        self._size = options.chunk_size or 32768
        self._progress = progress or (lambda _raw, _archive: None)
        self._content = bytearray()

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        """Keep the content for the end."""
        self._content += data

    def finish(self) -> None:
        """Store all chunks."""
        for raw in split(io.BytesIO(self._content), self._size):
            self._writer.write_chunk(Method.STORED, raw, raw)
            self._progress(self._writer.n_raw, self._writer.n_written)
            _fail()
        self._writer.finish()
        self._progress(self._writer.n_raw, self._writer.n_written)


def _fail() -> None:
    fault = os.environ.get("LLMZIP_FAULT")
    if fault == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if fault == "sleep":
        sys.stderr.write("asleep\n")
        sys.stderr.flush()
        time.sleep(60)


if __name__ == "__main__":
    for module in (llmzip.archive, llmzip.packing):
        module.StreamCompressor = StoringCompressor  # type: ignore[attr-defined]
    from llmzip.cli import main

    main()
