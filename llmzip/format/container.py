"""Frames: a header, its chunks, and a trailer where there are several. SPEC.md, section 2.

`FrameWriter` and `FrameReader` put the parts in order and check what the parts say of each other.
What a payload means is the business of `llmzip.codec`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from llmzip.errors import ChecksumError, FormatError, NotAnArchiveError
from llmzip.format.chunk_record import ChunkRecord, Method, TrailerMark, read_record, stored_record_size
from llmzip.format.header import Header
from llmzip.format.limits import DIGEST_SIZE, HEADER_SIZE, INDEX_STRIDE
from llmzip.format.reader import ByteReader
from llmzip.format.sections import Sections, read_sections
from llmzip.format.trailer import LENGTH_SIZE, IndexPoint, Trailer, read_trailer

_NONE = Sections()


class FrameWriter:
    """Writes one frame.

    Whether there is one chunk or several stands in the header, but is known only later: the header and the
    first chunk are held back until the second one comes, or the end.

    Args:
        file: where the frame goes; it needs no seeking.
        header: what decodes the chunks; its `single` and `sections` are set here.
        sections: what else stands behind the header; the conditioner is that of the header.
    """

    def __init__(self, file: BinaryIO, header: Header, sections: Sections = _NONE) -> None:
        self._file = file
        self._sections = sections._replace(conditioner=header.conditioner or None)
        self._sections.pack()
        self._header = header
        self._held: tuple[ChunkRecord, bytes] | None = None
        self._points: list[IndexPoint] = []
        self._digest = hashlib.sha256()
        self._n_chunks = 0
        self.n_raw = 0
        self.n_written = 0

    def write_chunk(self, method: Method, raw: bytes, payload: bytes) -> None:
        """Add a chunk; it is stored as it is if its record would not be smaller otherwise.

        Args:
            method: what `payload` is coded with.
            raw: the chunk's bytes, at least one.
            payload: what decodes to them; ignored for a stored chunk.

        Raises:
            ValueError: an empty chunk, or one above its method's limit.
        """
        if not raw:
            raise ValueError("chunk: expected at least 1 byte, found none")
        record, payload = _smallest(method, raw, payload)
        if self._n_chunks == 1:
            self._release(single=False)
        self._n_chunks += 1
        self._digest.update(raw)
        if self._n_chunks == 1:
            self._held = record, payload
        else:
            self._write_record(record, payload)
        self.n_raw += len(raw)

    def finish(self) -> None:
        """Write what is held back, and the trailer if there are several chunks."""
        if self._n_chunks > 1:
            digest = self._digest.digest()[:DIGEST_SIZE]
            self._write(Trailer(tuple(self._points), digest).pack())
            return
        if self._held is None:
            self._held = ChunkRecord.of(Method.STORED, b"", b""), b""
        if self._held[0].method is not Method.MODEL:
            self._header = self._header.without_model()
            self._sections = self._sections._replace(conditioner=None)
        self._release(single=True)

    def _release(self, *, single: bool) -> None:
        """Write the header and the chunk that was held back."""
        assert self._held is not None
        sections = self._sections.pack()
        self._write(replace(self._header, single=single, sections=bool(sections)).pack() + sections)
        self._write_record(*self._held)
        self._held = None

    def _write_record(self, record: ChunkRecord, payload: bytes) -> None:
        if self._n_chunks > 1 and (self._n_chunks - 1) % INDEX_STRIDE == 0:
            self._points.append(IndexPoint(self.n_raw, self.n_written))
        self._write(record.pack())
        self._write(payload)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.n_written += len(data)


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk stands.

    Attributes:
        record: what its record says.
        offset: position of the record in the archive.
        raw_offset: position of its first byte in the archive's content.
    """

    record: ChunkRecord
    offset: int
    raw_offset: int


class FrameReader:
    """Reads one frame from first to last chunk, by `chunks` or by `places`, once.

    Attributes:
        header: what decodes the chunks.
        sections: what stands behind the header.
        offset: position of the frame in the archive.
        raw_offset: position of its content in the archive's content.
        raw_length: bytes of content in the chunks passed so far.
        n_chunks: chunks passed so far.
        points: every 64th chunk among them.
        trailer: known after the last chunk; `None` for a frame of a single chunk.
        finished: the whole frame has been read.
    """

    def __init__(self, reader: ByteReader, header: Header, raw_offset: int) -> None:
        self._reader = reader
        self._digest = hashlib.sha256()
        self.offset = reader.offset - HEADER_SIZE
        self.raw_offset = raw_offset
        self.raw_length = 0
        self.n_chunks = 0
        self.points: list[IndexPoint] = []
        self.trailer: Trailer | None = None
        self.finished = False
        self.sections = read_sections(reader) if header.sections else _NONE
        self.header = header.with_conditioner(self.sections.conditioner, self.offset)

    @property
    def size(self) -> int:
        """Count the bytes of the frame passed so far."""
        return self._reader.offset - self.offset

    def chunks(self, check: Callable[[ChunkPlace], None] = lambda _: None) -> Iterator[tuple[ChunkPlace, bytes]]:
        """Give each chunk's place and payload.

        Args:
            check: may refuse a chunk before its payload is read.
        """
        for place in self._walk():
            check(place)
            yield place, self._reader.read(place.record.payload_length, "chunk payload")

    def places(self) -> Iterator[ChunkPlace]:
        """Give each chunk's place, and pass over the payloads."""
        for place in self._walk():
            self._reader.skip(place.record.payload_length, "chunk payload")
            yield place

    def update_digest(self, raw: bytes) -> None:
        """Take the next decoded bytes, in their order."""
        self._digest.update(raw)

    def check_digest(self) -> None:
        """Compare all decoded bytes with the digest of the trailer, if there is one.

        Raises:
            ChecksumError: they differ.
        """
        if self.trailer is None:
            return
        computed = self._digest.digest()[:DIGEST_SIZE]
        if computed != self.trailer.digest:
            offset = self._reader.offset - LENGTH_SIZE - DIGEST_SIZE
            raise ChecksumError.differs("content digest", offset, self.trailer.digest, computed)

    def _walk(self) -> Iterator[ChunkPlace]:
        """Give the place of each chunk; the reader stands at its payload, and must be moved behind it."""
        while not self.finished:
            offset = self._reader.offset
            record = read_record(self._reader, single=self.header.single)
            if isinstance(record, TrailerMark):
                self._end(record, offset)
                return
            check_method(record, self.header, offset)
            if self.n_chunks and self.n_chunks % INDEX_STRIDE == 0:
                self.points.append(IndexPoint(self.raw_length, offset - self.offset))
            self.n_chunks += 1
            place = ChunkPlace(record, offset, self.raw_offset + self.raw_length)
            self.raw_length += record.raw_length
            self.finished = self.header.single
            yield place

    def _end(self, mark: TrailerMark, offset: int) -> None:
        """Read the trailer and compare its index with what was passed."""
        if self.n_chunks == 0:
            raise FormatError("expected at least one chunk, found none", field="frame", offset=offset)
        if mark.n_index != len(self.points):
            raise FormatError(
                f"expected {len(self.points)} entries for {self.n_chunks} chunks, found {mark.n_index}",
                field="index",
                offset=offset,
                need=len(self.points),
                have=mark.n_index,
            )
        trailer = read_trailer(self._reader, mark.n_index, offset)
        if list(trailer.points) != self.points:
            raise FormatError("expected the places of the chunks, found others", field="index", offset=offset)
        self.trailer = trailer
        self.finished = True


def read_frames(file: BinaryIO) -> Iterator[FrameReader]:
    """Read the frames of an archive one after another.

    What the caller leaves of a frame is passed over before the next one is given.

    Args:
        file: an archive from its beginning; it may be a pipe.

    Raises:
        NotAnArchiveError: the file does not begin with a frame.
        FormatError: something other than a frame follows the last one.
    """
    reader = ByteReader(file)
    raw_offset = 0
    header = Header.unpack(reader.read_up_to(HEADER_SIZE))
    while True:
        frame = FrameReader(reader, header, raw_offset)
        yield frame
        for _ in frame.places():
            pass
        raw_offset += frame.raw_length
        offset = reader.offset
        data = reader.read_up_to(HEADER_SIZE)
        if not data:
            return
        try:
            header = Header.unpack(data, offset)
        except NotAnArchiveError as error:
            raise FormatError("trailing bytes", offset=offset, need=error.need, have=error.have) from error


def check_method(record: ChunkRecord, header: Header, offset: int) -> None:
    """Refuse a model chunk in a frame that names no model.

    Args:
        record: the chunk's.
        header: the frame's.
        offset: position of the record, for the error.
    """
    if record.method is Method.MODEL and not header.uses_model:
        raise FormatError(
            "expected a stored or general chunk under a header without a model, found a model chunk",
            field="chunk method",
            offset=offset,
        )


def _smallest(method: Method, raw: bytes, payload: bytes) -> tuple[ChunkRecord, bytes]:
    """Make the record, or that of a stored chunk where this is no longer: the bound of SPEC.md, section 8."""
    if method is not Method.STORED and len(payload) < len(raw):
        record = ChunkRecord.of(method, raw, payload)
        if record.size < stored_record_size(len(raw)):
            return record, payload
    return ChunkRecord.of(Method.STORED, raw, raw), raw
