"""The chunks of a damaged archive: all that can be found, and the places between them that nobody understands.

Where records follow each other up to the next place that is known (an entry of the index, the trailer), they are
believed, and what their payloads are worth is for the caller to find out. Between two such places where they do not,
chunks are looked for from both ends, and only those are taken that decode to what their checks say.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from llmzip.errors import FormatError
from llmzip.format.chunk_record import ChunkRecord, Method, TrailerMark, read_record
from llmzip.format.header import Header
from llmzip.format.limits import HEADER_SIZE, MAGIC, MAX_SECTION_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.sections import Sections, read_sections
from llmzip.format.trailer import LENGTH_SIZE, read_trailer

# A record without its payload is no longer.
_MAX_RECORD_SIZE = 16


class Chunk(NamedTuple):
    """A chunk that was found.

    Attributes:
        header: of its frame.
        record: what its record says.
        offset: of the record in the archive.
        raw_offset: of its first byte in the content of the archive; None where the length of what is lost before it
            cannot be known.
        payload: as it stands there.
    """

    header: Header
    record: ChunkRecord
    offset: int
    raw_offset: int | None
    payload: bytes


class Gap(NamedTuple):
    """Bytes of the archive, `start` up to `stop`, that are nothing; none where something is missing at its end.

    Attributes:
        n_raw: how many bytes of content are lost there; None if that cannot be known.
    """

    start: int
    stop: int
    n_raw: int | None


class _Known(NamedTuple):
    """Where a record begins, or the trailer, for certain; and the content before it in the frame, if that is known."""

    offset: int
    n_raw: int | None


# Whether a payload decodes to what its record says.
Decodes = Callable[[Header, ChunkRecord, bytes], bool]


def recover(file: BinaryIO, decodes: Decodes) -> Iterator[Chunk | Gap]:
    """Find all chunks of an archive, in order, and what lies between them.

    Args:
        file: a damaged archive that can seek.
        decodes: asked where records alone do not tell.
    """
    data = _map(file)
    if not data:
        yield Gap(0, 0, None)
    place, n_before = 0, 0
    lost_count = False
    while place < len(data):
        frame = _Frame.at(data, place)
        if frame is None:
            following = _find_header(data, place + 1)
            lost_count = True
            yield Gap(place, following, None)
            place = following
            continue
        for part in frame.parts(decodes):
            if isinstance(part, Gap):
                lost_count |= part.n_raw is None
                n_before += part.n_raw or 0
                yield part
            else:
                yield part._replace(raw_offset=None if lost_count else n_before)
                n_before += part.record.raw_length
        place = frame.stop


class _Frame:
    """One frame, as much of it as can be made out.

    Attributes:
        stop: where the next frame begins, or the archive ends.
    """

    def __init__(self, data: bytes | mmap.mmap, header: Header, first: int) -> None:
        self._data = data
        self._header = header
        self._known = [_Known(first, 0)]
        self._ends_at_trailer = False
        self.stop = len(data)

    @classmethod
    def at(cls, data: bytes | mmap.mmap, place: int) -> _Frame | None:
        """The frame whose header stands at `place`; None if there is none."""
        reader = ByteReader(io.BytesIO(data[place : place + HEADER_SIZE + MAX_SECTION_LENGTH + 64]), place)
        try:
            header = Header.unpack(reader.read_up_to(HEADER_SIZE), place)
            _ = read_sections(reader) if header.sections else Sections()
        except FormatError:
            return None
        frame = cls(data, header, reader.offset)
        frame._find_end(place)
        return frame

    def _find_end(self, place: int) -> None:
        """Follow the records to the trailer; where that fails, the trailer at the archive's end may be this frame's."""
        if self._header.single:
            record = self._record(self._known[0].offset)
            if record is not None:
                self.stop = _end(record, self._known[0].offset)
            return
        offset = self._known[0].offset
        while (record := self._record(offset)) is not None:
            offset = _end(record, offset)
        if not self._take_trailer(offset, place):
            length = int.from_bytes(self._data[len(self._data) - LENGTH_SIZE :], "little")
            if not self._take_trailer(len(self._data) - LENGTH_SIZE - length, place):
                self.stop = _find_header(self._data, self._known[0].offset)

    def _take_trailer(self, mark: int, place: int) -> bool:
        """Take the index of a trailer at `mark`, if there is one."""
        if mark <= self._known[0].offset:
            return False
        reader = ByteReader(io.BytesIO(self._data[mark:]), mark)
        try:
            found = read_record(reader)
            if not isinstance(found, TrailerMark) or found.n_index > len(self._data):
                return False
            trailer = read_trailer(reader, found.n_index, mark)
        except FormatError:
            return False
        self._known += [_Known(place + point.offset, point.raw_offset) for point in trailer.points]
        self._known.append(_Known(mark, None))
        self._ends_at_trailer = True
        self.stop = reader.offset
        return True

    def parts(self, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """All chunks and gaps, in order."""
        if not self._ends_at_trailer:
            yield from self._from_left(decodes)
            return
        for left, right in zip(self._known, self._known[1:], strict=False):
            chunks = list(self._follow(left.offset, right.offset))
            n_raw = sum(chunk.record.raw_length for chunk in chunks)
            reached = chunks and _end_of(chunks[-1]) == right.offset
            if reached and right.n_raw in (None, (left.n_raw or 0) + n_raw):
                yield from chunks
            else:
                yield from self._between(left, right, decodes)

    def _from_left(self, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """A frame without a trailer: chunks up to the last one that decodes; if it has only one, that one."""
        chunks = list(self._follow(self._known[0].offset, self.stop))
        while chunks and not self._header.single and not decodes(self._header, chunks[-1].record, chunks[-1].payload):
            chunks.pop()
        yield from chunks
        start = _end_of(chunks[-1]) if chunks else self._known[0].offset
        if start < self.stop or not chunks or not self._header.single:
            yield Gap(start, self.stop, None)

    def _between(self, left: _Known, right: _Known, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """Chunks from both ends of a stretch whose records do not lead from one to the other."""
        start, stop = left.offset, right.offset
        n_raw = 0
        for chunk in self._follow(start, stop):
            if not decodes(self._header, chunk.record, chunk.payload):
                break
            yield chunk
            start, n_raw = _end_of(chunk), n_raw + chunk.record.raw_length
        behind = list(self._follow_back(start, stop, decodes))
        n_raw += sum(chunk.record.raw_length for chunk in behind)
        n_lost = None if right.n_raw is None or left.n_raw is None else right.n_raw - left.n_raw - n_raw
        yield Gap(start, behind[-1].offset if behind else stop, n_lost)
        yield from reversed(behind)

    def _follow(self, start: int, stop: int) -> Iterator[Chunk]:
        """Chunks one after another, the last of them ending at `stop` or before."""
        while start < stop and (record := self._record(start)) is not None and _end(record, start) <= stop:
            yield self._chunk(record, start)
            start = _end(record, start)

    def _follow_back(self, start: int, stop: int, decodes: Decodes) -> Iterator[Chunk]:
        """Chunks from `stop` back, each ending where the one after it begins."""
        ending: dict[int, list[int]] = {}
        for offset in range(start, stop):
            record = self._record(offset)
            if record is not None and _end(record, offset) <= stop:
                ending.setdefault(_end(record, offset), []).append(offset)
        while candidates := ending.get(stop):
            for offset in candidates:
                record = self._record(offset)
                if record is not None and decodes(self._header, record, self._chunk(record, offset).payload):
                    yield self._chunk(record, offset)
                    stop = offset
                    break
            else:
                return

    def _record(self, offset: int) -> ChunkRecord | None:
        """The record at a place, if there can be one."""
        reader = ByteReader(io.BytesIO(self._data[offset : offset + _MAX_RECORD_SIZE]))
        try:
            record = read_record(reader, single=self._header.single)
        except FormatError:
            return None
        if isinstance(record, TrailerMark) or offset + record.size > len(self._data):
            return None
        return None if record.method is Method.MODEL and not self._header.uses_model else record

    def _chunk(self, record: ChunkRecord, offset: int) -> Chunk:
        stop = _end(record, offset)
        return Chunk(self._header, record, offset, None, self._data[stop - record.payload_length : stop])


def _end(record: ChunkRecord, offset: int) -> int:
    return offset + record.size


def _end_of(chunk: Chunk) -> int:
    return _end(chunk.record, chunk.offset)


def _find_header(data: bytes | mmap.mmap, start: int) -> int:
    """Where the next header stands from `start` on; the end if there is none."""
    while (start := data.find(MAGIC, start)) >= 0:
        try:
            Header.unpack(data[start : start + HEADER_SIZE], start)
        except FormatError:
            start += 1
        else:
            return start
    return len(data)


def _map(file: BinaryIO) -> bytes | mmap.mmap:
    """All bytes of a file, without reading them where the system can."""
    file.seek(0)
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return file.read()
