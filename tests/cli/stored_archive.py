"""Stands in for `llmzip.archive` so that the commands are tested without a model: every chunk is stored.

`LLMZIP_FAULT` makes compress fail after its first chunk: `full` as a full disk does, `sleep` never ends.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from llmzip.chunking import split
from llmzip.format import FrameIndex, FrameWriter, Header, Method, read_frames

Report = Callable[[int, int], None] | None


@dataclass(frozen=True)
class CompressOptions:
    """The options of the real module."""

    model: str | None = None
    chunk_size: int | None = None
    window: int | None = None
    overlap: int | None = None
    threads: int | None = None
    lanes: int | None = None


@dataclass(frozen=True)
class DecompressOptions:
    """The options of the real module."""

    model: str | None = None
    threads: int | None = None
    lanes: int | None = None


def compress_stream(source: BinaryIO, target: BinaryIO, options: CompressOptions, progress: Report) -> None:
    """Store the input in chunks."""
    writer = FrameWriter(target, Header())
    for raw in split(source, options.chunk_size or 32768):
        writer.write_chunk(Method.STORED, raw, raw)
        if progress:
            progress(writer.n_raw, writer.n_written)
        _fail()
    writer.finish()
    if progress:
        progress(writer.n_raw, writer.n_written)


def decompress_stream(source: BinaryIO, target: BinaryIO, options: DecompressOptions, progress: Report) -> None:
    """Write the stored chunks."""
    assert options
    for frame in read_frames(source):
        for place, payload in frame.chunks():
            place.record.verify(payload, payload, place.offset)
            frame.update_digest(payload)
            target.write(payload)
            if progress:
                progress(place.raw_offset + len(payload), place.offset)
        frame.check_digest()


def read_range(source: BinaryIO, start: int, stop: int, options: DecompressOptions) -> Iterator[bytes]:
    """Give the bytes of a range."""
    assert options
    index = FrameIndex(source)
    for _, place, payload in index.chunks(start, stop):
        yield payload[max(start - place.raw_offset, 0) : stop - place.raw_offset]


def _fail() -> None:
    fault = os.environ.get("LLMZIP_FAULT")
    if fault == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if fault == "sleep":
        sys.stderr.write("asleep\n")
        sys.stderr.flush()
        time.sleep(60)


if __name__ == "__main__":
    module = types.ModuleType("llmzip.archive")
    module.__dict__.update(globals())
    sys.modules["llmzip.archive"] = module
    from llmzip.cli import main

    main()
