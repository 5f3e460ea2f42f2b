"""Archives from bytes and back: joins the chunk codec and the container.

`compress` and `decompress` for bytes, `compress_stream` and `decompress_stream` for files and pipes; `open`,
for an archive as a file object, is in `archive_file`. Memory is bounded by the model, its lanes, and a few groups
of chunks; the size of the input does not matter.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from llmzip.decoding import decode_each
from llmzip.encoding import Progress, StreamCompressor
from llmzip.errors import ConfigError, FormatError
from llmzip.format import ChunkPlace, Header, read_frames
from llmzip.loading import check_place
from llmzip.members import Member, check_count, check_members, check_sizes, members_of
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.resources import check_size


def compress(data: bytes, options: CompressOptions | None = None) -> bytes:
    """Compress bytes to an archive."""
    target = io.BytesIO()
    compress_stream(io.BytesIO(data), target, options or CompressOptions())
    return target.getvalue()


def decompress(archive: bytes, options: DecompressOptions | None = None) -> bytes:
    """Restore the bytes that an archive was made of.

    Raises:
        FormatError: the archive is damaged.
        ModelError: the model that it needs is not there, or computes something else.
    """
    target = io.BytesIO()
    decompress_stream(io.BytesIO(archive), target, options or DecompressOptions())
    return target.getvalue()


def compress_stream(
    source: BinaryIO,
    target: BinaryIO,
    options: CompressOptions,
    progress: Progress | None = None,
    journal: BinaryIO | None = None,
) -> None:
    """Compress a file or pipe.

    Args:
        source: opened for reading in binary mode.
        target: opened for writing; it needs no seeking.
        options: model and sizes.
        progress: told the raw bytes taken in and the archive bytes written so far.
        journal: see `StreamCompressor`.
    """
    with StreamCompressor(target, options, progress, journal=journal) as compressor:
        while data := source.read(1 << 20):
            compressor.write(data)
        compressor.finish()


def decompress_stream(
    source: BinaryIO,
    target: BinaryIO,
    options: DecompressOptions,
    progress: Progress | None = None,
    *,
    refuse_members: bool = False,
) -> None:
    """Restore the content of an archive, checking every checksum; of an archive of files, that of all in a row.

    Args:
        source: an archive; it may be a pipe.
        target: opened for writing. What is written before an error is right as far as it goes.
        options: where to find the model.
        progress: told the raw bytes written and the archive bytes read so far.
        refuse_members: refuse an archive of files with a ConfigError.
    """
    for _, raw in _decode(source, options, progress, refuse_members=refuse_members):
        if isinstance(raw, FormatError):
            raise raw
        target.write(raw)
        del raw  # or it would be there while the next chunk is decoded


def verify_stream(
    source: BinaryIO, options: DecompressOptions, progress: Progress | None = None
) -> Iterator[tuple[ChunkPlace, FormatError]]:
    """Decode an archive without keeping its content; each damaged chunk, and what is wrong with it.

    Args:
        source: an archive; it may be a pipe.
        options: where to find the model.
        progress: told the raw bytes decoded and the archive bytes read so far.

    Raises:
        FormatError: damage outside of chunks, where reading cannot go on.
        ModelError: the model that it needs is not there, or computes something else.
    """
    for place, raw in _decode(source, options, progress):
        if isinstance(raw, FormatError):
            yield place, raw


def _decode(
    source: BinaryIO, options: DecompressOptions, progress: Progress | None, *, refuse_members: bool = False
) -> Iterator[tuple[ChunkPlace, bytes | FormatError]]:
    """All chunks, or what is wrong with them; what frames say of them together is checked where none is damaged."""
    all_members: list[Member] = []
    for frame in read_frames(source):
        members = members_of(frame.sections)
        if refuse_members and members is not None:
            raise ConfigError("expected an archive of content alone, found one of files; run: llmzip extract")
        chunks = ((frame.header, place, payload) for place, payload in frame.chunks(_Check(frame.header, options)))
        whole = True
        for place, raw in decode_each(chunks, options):
            if isinstance(raw, FormatError):
                whole = False
            else:
                frame.update_digest(raw)
            yield place, raw
            del raw
            if progress:
                progress(place.raw_offset + place.record.raw_length, frame.offset + frame.size)
        if whole:
            frame.check_digest()
        if members is not None:
            check_sizes(members, frame.raw_length, frame.offset)
            all_members += members
            check_count(len(all_members))
    check_members(all_members)


@dataclass(frozen=True)
class _Check:
    """Refuses chunks of a frame that are more than is allowed, before they are read."""

    header: Header
    options: DecompressOptions

    def __call__(self, place: ChunkPlace) -> None:
        check_size(place.raw_offset + place.record.raw_length, self.options, place.offset)
        check_place(self.header, place, self.options)
