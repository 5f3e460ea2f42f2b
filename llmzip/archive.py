"""Archives from bytes and back: joins the chunk codec and the container.

`compress` and `decompress` for bytes, `compress_stream` and `decompress_stream` for files and pipes; `open`,
for an archive as a file object, is in `archive_file`. Memory is bounded by the model, its lanes, and a few groups
of chunks; the size of the input does not matter.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from llmzip.chunking import split
from llmzip.decoding import decode_each
from llmzip.defaults import default_chunk_size
from llmzip.errors import ConfigError, FormatError
from llmzip.format import ChunkPlace, FrameWriter, Header, Sections, read_frames
from llmzip.format.limits import ARTEFACT_ID_SIZE
from llmzip.journal import Journal
from llmzip.loading import load_codec
from llmzip.members import Member, check_members, check_sizes, members_of
from llmzip.options import CompressOptions, DecompressOptions

Progress = Callable[[int, int], None]

GROUP_SIZE = 4 << 20


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


class StreamCompressor:
    """Takes bytes as they come and writes an archive; `finish` writes its end.

    Args:
        target: opened for writing; it needs no seeking.
        options: model and sizes.
        progress: told the raw bytes taken in and the archive bytes written so far.
        sections: what stands behind the header.
        journal: a file, opened for reading and writing, that keeps what the model made of chunks, and gives what an
            earlier run has kept there.
    """

    def __init__(
        self,
        target: BinaryIO,
        options: CompressOptions,
        progress: Progress | None = None,
        sections: Sections | None = None,
        journal: BinaryIO | None = None,
    ) -> None:
        self._codec = load_codec(options)
        header = Header(
            window=self._codec.windowing.window,
            overlap=self._codec.windowing.overlap,
            artefact_id=bytes.fromhex(self._codec.artefact.id)[:ARTEFACT_ID_SIZE],
            canary=self._codec.canary(),
        )
        self._writer = FrameWriter(target, header, sections or Sections())
        self._chunk_size = options.chunk_size
        self._progress = progress or (lambda _raw, _archive: None)
        self._pool = ThreadPoolExecutor(options.n_threads)
        self._journal = Journal(journal, self._codec) if journal else None
        self._buffer = bytearray()

    def __enter__(self) -> StreamCompressor:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def n_raw(self) -> int:
        """Bytes of content that are in the archive so far."""
        return self._writer.n_raw

    @property
    def n_written(self) -> int:
        """Bytes of the archive so far."""
        return self._writer.n_written

    def write(self, data: bytes) -> None:
        """Take in more of the content."""
        self._buffer += data
        while len(self._buffer) > GROUP_SIZE:
            # The last chunk of a full group may end where the group happens to: it goes to the next one.
            chunks = self._split(bytes(self._buffer[:GROUP_SIZE]))
            chunks = chunks[:-1] or chunks
            del self._buffer[: sum(map(len, chunks))]
            self._write_group(chunks)

    def finish(self) -> None:
        """Code what is left and end the archive."""
        if self._buffer:
            self._write_group(self._split(bytes(self._buffer)))
            self._buffer.clear()
        self._writer.finish()
        self._progress(self._writer.n_raw, self._writer.n_written)

    def _split(self, group: bytes) -> list[bytes]:
        """The chunks of a group, all of the size that the first group asked for."""
        if self._chunk_size is None:
            self._chunk_size = default_chunk_size(self._codec.artefact.spec, self._codec.windowing.window, len(group))
        return list(split(io.BytesIO(group), self._chunk_size))

    def _write_group(self, chunks: list[bytes]) -> None:
        from llmzip.methods import plan

        raw_done, written = self._writer.n_raw, self._writer.n_written
        payloads: list[bytes | None] = []
        for raw, payload in zip(chunks, self._model_payloads(chunks), strict=True):
            payloads.append(payload)
            raw_done += len(raw)
            written += len(payloads[-1] or raw)
            self._progress(raw_done, written)
        for part in plan(chunks, payloads, self._pool.map):
            self._writer.write_chunk(part.method, part.raw, part.payload)

    def _model_payloads(self, chunks: list[bytes]) -> Iterator[bytes | None]:
        """What the model makes of each chunk, or has made of it before; None for what is no text."""
        from llmzip.methods import looks_like_text

        texts = [i for i, raw in enumerate(chunks) if looks_like_text(raw)]
        kept = {i: self._journal.find(chunks[i]) for i in texts} if self._journal else {}
        missing = {i: chunks[i] for i in texts if kept.get(i) is None}
        payloads = self._codec.encode(self._codec.tokenise(list(missing.values())), self._pool)
        for i, raw in enumerate(chunks):
            if i in missing:
                payload = next(payloads)
                if self._journal:
                    self._journal.keep(raw, payload)
                yield payload
            else:
                yield kept.get(i)


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
        chunks = ((frame.header, place, payload) for place, payload in frame.chunks())
        whole = True
        for place, raw in decode_each(chunks, options):
            if isinstance(raw, FormatError):
                whole = False
            else:
                frame.update_digest(raw)
            yield place, raw
            if progress:
                progress(place.raw_offset + place.record.raw_length, frame.offset + frame.size)
        if whole:
            frame.check_digest()
        if members is not None:
            check_sizes(members, frame.raw_length, frame.offset)
            all_members += members
    check_members(all_members)
