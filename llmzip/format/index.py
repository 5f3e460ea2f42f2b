"""Finding chunks without decoding: a summary of each frame, a way to any byte of the content. SPEC.md, section 7."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from llmzip.errors import FormatError
from llmzip.format.chunk_record import Method, TrailerMark, read_record
from llmzip.format.container import ChunkPlace, FrameReader, check_method, read_frames
from llmzip.format.header import Header
from llmzip.format.limits import HEADER_SIZE, INDEX_STRIDE
from llmzip.format.reader import ByteReader
from llmzip.format.sections import Sections
from llmzip.format.trailer import LENGTH_SIZE, IndexPoint, Trailer, read_trailer


@dataclass
class MethodTotal:
    """How much of a frame one method took."""

    n_chunks: int = 0
    raw_length: int = 0
    payload_length: int = 0


@dataclass(frozen=True)
class FrameSummary:
    """What a frame holds, as far as it can be told without decoding.

    Attributes:
        header: what decodes the chunks.
        sections: what stands behind the header.
        offset: position of the frame in the archive.
        size: bytes of the frame.
        raw_offset: position of its content in the archive's content.
        raw_length: bytes of content.
        points: the first chunk and every 64th.
        digest: first bytes of the SHA-256 of the content; `None` for a frame of a single chunk.
        methods: totals by method.
    """

    header: Header
    sections: Sections
    offset: int
    size: int
    raw_offset: int
    raw_length: int
    points: tuple[IndexPoint, ...]
    digest: bytes | None
    methods: dict[Method, MethodTotal] = field(default_factory=dict)


def scan(file: BinaryIO) -> Iterator[FrameSummary]:
    """Summarise each frame, passing over the payloads.

    Args:
        file: an archive from its beginning; it may be a pipe.

    Raises:
        FormatError: as `read_frames`.
    """
    for frame in read_frames(file):
        summary, error = _summarise(frame)
        if error is not None:
            raise error
        assert summary is not None
        yield summary


def _summarise(frame: FrameReader) -> tuple[FrameSummary | None, FormatError | None]:
    """What a frame holds, as far as it can be read, and what stopped the reader; nothing without a whole chunk."""
    methods = {method: MethodTotal() for method in Method}
    first = error = None
    raw_length = 0
    try:
        for place in frame.places():
            first = first or IndexPoint(0, place.offset - frame.offset)
            total = methods[place.record.method]
            total.n_chunks += 1
            total.raw_length += place.record.raw_length
            total.payload_length += place.record.payload_length
            raw_length += place.record.raw_length
    except FormatError as caught:
        error = caught
    if first is None:
        return None, error
    summary = FrameSummary(
        header=frame.header,
        sections=frame.sections,
        offset=frame.offset,
        size=frame.size,
        raw_offset=frame.raw_offset,
        raw_length=raw_length,
        points=(first, *(point for point in frame.points if point.raw_offset < raw_length)),
        digest=frame.trailer.digest if frame.trailer else None,
        methods={method: total for method, total in methods.items() if total.n_chunks},
    )
    return summary, error


class FrameIndex:
    """The way to any byte of an archive's content.

    Made from the index at the archive's end where that one belongs to the archive's only frame, else by a scan.

    Args:
        file: an archive that can seek. While an iterator of `chunks` is in use, nobody else may move it.
        tolerant: take the chunks before damage, such as a missing end, instead of refusing the archive.

    Attributes:
        frames: a summary of each.
        raw_length: bytes of content that can be reached.
        damage: what keeps from reaching more, if anything does.

    Raises:
        FormatError: the archive is damaged, and not `tolerant`, or before its first chunk.
    """

    def __init__(self, file: BinaryIO, *, tolerant: bool = False) -> None:
        self._file = file
        self.damage: FormatError | None = None
        indexed = _frame_by_index(file)
        self.frames = list(self._walk(tolerant)) if indexed is None else [indexed]
        self.raw_length = sum(frame.raw_length for frame in self.frames)

    def _walk(self, tolerant: bool) -> Iterator[FrameSummary]:
        """Summarise the frames by their records, up to damage."""
        self._file.seek(0)
        n_frames = 0
        try:
            for frame in read_frames(self._file):
                summary, error = _summarise(frame)
                if summary is not None and (error is None or tolerant):
                    n_frames += 1
                    yield summary
                if error is not None:
                    raise error
        except FormatError as error:
            if not tolerant or not n_frames:
                raise
            self.damage = error

    def chunks(
        self, start: int, stop: int, check: Callable[[Header, ChunkPlace], None] = lambda *_: None
    ) -> Iterator[tuple[Header, ChunkPlace, bytes]]:
        """Give header, place and payload of each chunk that holds a byte of `[start, stop)`.

        Args:
            start: first byte of the content wanted, from 0.
            stop: first byte no longer wanted.
            check: may refuse a chunk before its payload is read.
        """
        for frame in self.frames:
            if frame.raw_offset < stop and start < frame.raw_offset + frame.raw_length:
                for place, reader in self._places_of(frame, start, stop):
                    check(frame.header, place)
                    yield frame.header, place, reader.read(place.record.payload_length, "chunk payload")

    def _places_of(self, frame: FrameSummary, start: int, stop: int) -> Iterator[tuple[ChunkPlace, ByteReader]]:
        """Give the place of each chunk; the reader stands at its payload, and must be moved behind it."""
        raw_starts = [point.raw_offset for point in frame.points]
        point = frame.points[max(bisect_right(raw_starts, start - frame.raw_offset) - 1, 0)]
        self._file.seek(frame.offset + point.offset)
        reader = ByteReader(self._file, frame.offset + point.offset)
        raw_offset = frame.raw_offset + point.raw_offset
        while raw_offset < min(stop, frame.raw_offset + frame.raw_length):
            place = _read_place(reader, frame.header, raw_offset)
            raw_offset += place.record.raw_length
            if raw_offset <= start:
                reader.skip(place.record.payload_length, "chunk payload")
            else:
                yield place, reader


def _read_place(reader: ByteReader, header: Header, raw_offset: int) -> ChunkPlace:
    offset = reader.offset
    record = read_record(reader, single=header.single)
    if isinstance(record, TrailerMark):
        raise FormatError("expected a chunk, found a trailer", field="chunk method", offset=offset)
    check_method(record, header, offset)
    return ChunkPlace(record, offset, raw_offset)


def _frame_by_index(file: BinaryIO) -> FrameSummary | None:
    """Summarise an archive of one frame from the index at its end; `None` where that is not possible.

    The index at the end may belong to a later frame than the first. It is believed only if the chunks that
    follow its last point from the first frame's beginning end where its trailer begins.
    """
    try:
        return _read_by_index(file)
    except FormatError:
        return None


def _read_by_index(file: BinaryIO) -> FrameSummary | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - LENGTH_SIZE, 0))
    trailer_length = int.from_bytes(file.read(LENGTH_SIZE), "little")
    mark_offset = size - LENGTH_SIZE - trailer_length
    if trailer_length == 0 or mark_offset <= HEADER_SIZE:
        return None
    trailer = _read_last_trailer(file, mark_offset)
    file.seek(0)
    reader = ByteReader(file)
    frame = FrameReader(reader, Header.unpack(reader.read(HEADER_SIZE, "header")), 0)
    points = (IndexPoint(0, reader.offset), *trailer.points)
    raw_length = _raw_length_at(file, frame.header, points[-1], mark_offset)
    if frame.header.single or raw_length is None:
        return None
    return FrameSummary(frame.header, frame.sections, 0, size, 0, raw_length, points, trailer.digest)


def _read_last_trailer(file: BinaryIO, mark_offset: int) -> Trailer:
    file.seek(mark_offset)
    reader = ByteReader(file, mark_offset)
    mark = read_record(reader)
    if not isinstance(mark, TrailerMark):
        raise FormatError("expected a trailer, found a chunk", field="chunk method", offset=mark_offset)
    return read_trailer(reader, mark.n_index, mark_offset)


def _raw_length_at(file: BinaryIO, header: Header, point: IndexPoint, mark_offset: int) -> int | None:
    """Walk from the last point to the trailer; `None` if the chunks end elsewhere or are too many."""
    file.seek(point.offset)
    reader = ByteReader(file, point.offset)
    raw_offset = point.raw_offset
    for _ in range(INDEX_STRIDE):
        place = _read_place(reader, header, raw_offset)
        reader.skip(place.record.payload_length, "chunk payload")
        raw_offset += place.record.raw_length
        if reader.offset >= mark_offset:
            return raw_offset if reader.offset == mark_offset else None
    return None
