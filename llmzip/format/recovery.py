"""The chunks of a damaged archive: all that can be found, and the places between them that nobody understands.

Where records follow each other up to the next place that is known (an entry of the index, the trailer), they are
believed, and what their payloads are worth is for the caller to find out. Between two such places where they do not,
chunks are looked for from both ends, and only those are taken that decode to what their checks say.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from llmzip.errors import FormatError
from llmzip.format.chunk_record import ChunkRecord, Method, TrailerMark, read_record
from llmzip.format.frame_search import Data, find_frame, find_header, map_file, stop_of_record
from llmzip.format.header import Header
from llmzip.format.limits import HEADER_SIZE
from llmzip.format.reader import ByteReader
from llmzip.format.sections import read_damaged_sections
from llmzip.format.trailer import LENGTH_SIZE, read_trailer

# A record without its payload is no longer.
_MAX_RECORD_SIZE = 16
# How far before a known place records are looked for, and how many that end there are tried.
_MAX_SEARCH = 4 << 20
_MAX_TRIALS = 16
# What stands for a conditioner section that is damaged: no body begins so, and chunks that need it are lost.
_DAMAGED = b"\xff"


class Chunk(NamedTuple):
    """A chunk that was found.

    Attributes:
        header: of its frame.
        record: what its record says.
        offset: of the record in the archive.
        raw_offset: of its first byte in the content of the archive; None where the length of what is lost before it
            cannot be known.
        payload: as it stands there.
        sure: an index agrees with what its record says of its length.
    """

    header: Header
    record: ChunkRecord
    offset: int
    raw_offset: int | None
    payload: bytes
    sure: bool


class Gap(NamedTuple):
    """Bytes of the archive, `start` up to `stop`, that are nothing; none where something is missing at its end.

    Attributes:
        n_raw: how many bytes of content are lost there; None if that cannot be known.
    """

    start: int
    stop: int
    n_raw: int | None


class FrameEnd(NamedTuple):
    """The end of a frame, and the digest of its content, if it has a trailer."""

    digest: bytes | None


class _Known(NamedTuple):
    """Where a record begins, or the trailer, for certain; and the content before it in the frame, if that is known."""

    offset: int
    n_raw: int | None


# Whether a payload decodes to what its record says.
Decodes = Callable[[Header, ChunkRecord, bytes], bool]


def recover(file: BinaryIO, decodes: Decodes) -> Iterator[Chunk | Gap | FrameEnd]:
    """Find all chunks of an archive, in order, and what lies between them.

    Args:
        file: a damaged archive that can seek.
        decodes: asked where records alone do not tell.
    """
    data = map_file(file)
    if not data:
        yield Gap(0, 0, None)
    place, n_before = 0, 0
    lost_count = False
    while place < len(data):
        frame = _Frame.at(data, file, place)
        if frame is None:
            following = find_header(data, place + 1)
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
        yield FrameEnd(frame.digest)
        place = frame.stop


def _with_sections(header: Header, reader: ByteReader, place: int) -> Header:
    """The header with its conditioner; sections that are only damaged end where they should."""
    sections, damaged = read_damaged_sections(reader)
    conditioner = _DAMAGED if damaged and sections.conditioner is not None else sections.conditioner
    return header.with_conditioner(conditioner, place)


class _Found(NamedTuple):
    """A record, without its payload, and where it stands."""

    record: ChunkRecord
    offset: int

    @property
    def stop(self) -> int:
        return self.offset + self.record.size


class _Frame:
    """One frame, as much of it as can be made out.

    Attributes:
        stop: where the next frame begins, or the archive ends.
        digest: of its content, as its trailer has it; None without one.
    """

    def __init__(self, data: Data, file: BinaryIO, header: Header, first: int) -> None:
        self._data, self._file = data, file
        self._header = header
        self._known = [_Known(first, 0)]
        self.digest: bytes | None = None
        self.stop = len(data)

    @classmethod
    def at(cls, data: Data, file: BinaryIO, place: int) -> _Frame | None:
        """The frame whose header stands at `place`; None if there is none."""
        file.seek(place)
        reader = ByteReader(file, place)
        try:
            header = Header.unpack(reader.read_up_to(HEADER_SIZE), place)
            if header.sections:
                header = _with_sections(header, reader, place)
        except FormatError:
            return None
        frame = cls(data, file, header, reader.offset)
        frame._find_end(place)
        return frame

    def _find_end(self, place: int) -> None:
        """Follow the records to the trailer; where that fails, look for a trailer that fits."""
        first = self._known[0].offset
        if self._header.single:
            found = self._record(first)
            self.stop = found.stop if found else find_header(self._data, first)
            return
        offset = first
        while found := self._record(offset):
            offset = found.stop
        if self._take_trailer(offset, place):
            return
        following = find_frame(self._data, self._file, first)
        length = int.from_bytes(self._data[max(0, following - LENGTH_SIZE) : following], "little")
        if self._take_trailer(following - LENGTH_SIZE - length, place) and self.stop == following:
            return
        self._forget_trailer(find_header(self._data, first) if following == len(self._data) else following)

    def _forget_trailer(self, stop: int) -> None:
        del self._known[1:]
        self.digest = None
        self.stop = stop

    def _take_trailer(self, mark: int, place: int) -> bool:
        """Take the index of a trailer at `mark`, if there is one."""
        if mark <= self._known[0].offset:
            return False
        self._file.seek(mark)
        reader = ByteReader(self._file, mark)
        try:
            found = read_record(reader)
            if not isinstance(found, TrailerMark):
                return False
            trailer = read_trailer(reader, found.n_index, mark)
        except FormatError:
            return False
        points = [_Known(place + point.offset, point.raw_offset) for point in trailer.points]
        offsets = [self._known[0].offset, *(point.offset for point in points), mark]
        # An index that was made to lie is none.
        points = points if all(left < right for left, right in pairwise(offsets)) else []
        self._known += [*points, _Known(mark, None)]
        self.digest = trailer.digest
        self.stop = reader.offset
        return True

    def _leads(self, left: _Known, right: _Known) -> bool:
        """Whether records lead from one known place to the other, over as much content as the index says."""
        found = self._follow(left.offset, right.offset)
        n_raw = sum(record.raw_length for record, _ in found)
        reached = bool(found) and found[-1].stop == right.offset
        return reached and (None in (left.n_raw, right.n_raw) or right.n_raw == (left.n_raw or 0) + n_raw)

    def parts(self, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """All chunks and gaps, in order."""
        if self.digest is None:
            yield from self._from_left(decodes)
            return
        for left, right in pairwise(self._known):
            if self._leads(left, right):
                sure = None not in (left.n_raw, right.n_raw)
                yield from (self._chunk(found, sure=sure) for found in self._follow(left.offset, right.offset))
            else:
                yield from self._between(left, right, decodes)

    def _from_left(self, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """A frame without a trailer: chunks up to the last one that decodes; if it has only one, that one."""
        found = self._follow(self._known[0].offset, self.stop)
        while found and not self._header.single and not self._decodes(found[-1], decodes):
            found.pop()
        yield from map(self._chunk, found)
        start = found[-1].stop if found else self._known[0].offset
        if start < self.stop or not found or not self._header.single:
            yield Gap(start, self.stop, None)

    def _between(self, left: _Known, right: _Known, decodes: Decodes) -> Iterator[Chunk | Gap]:
        """Chunks from both ends of a stretch whose records do not lead from one to the other."""
        start, stop, n_raw = left.offset, right.offset, 0
        for found in self._follow(start, stop):
            if not self._decodes(found, decodes):
                break
            yield self._chunk(found)
            start, n_raw = found.stop, n_raw + found.record.raw_length
        behind = list(self._follow_back(start, stop, decodes))
        n_raw += sum(found.record.raw_length for found in behind)
        n_lost = None if right.n_raw is None or left.n_raw is None else right.n_raw - left.n_raw - n_raw
        lost_until = behind[-1].offset if behind else stop
        yield Gap(start, lost_until, n_lost if n_lost is not None and n_lost >= 0 else None)
        yield from map(self._chunk, reversed(behind))

    def _follow(self, start: int, stop: int) -> list[_Found]:
        """Records one after another, the last of them ending at `stop` or before."""
        records = []
        while start < stop and (found := self._record(start)) and found.stop <= stop:
            records.append(found)
            start = found.stop
        return records

    def _follow_back(self, start: int, stop: int, decodes: Decodes) -> Iterator[_Found]:
        """Records from `stop` back, each ending where the one after it begins."""
        ending: dict[int, list[int]] = {}
        for offset in range(max(start, stop - _MAX_SEARCH), stop):
            ending.setdefault(stop_of_record(self._data, offset), []).append(offset)
        while offsets := ending.get(stop):
            candidates = [found for offset in offsets if (found := self._record(offset)) and found.stop == stop]
            found = next((found for found in candidates[:_MAX_TRIALS] if self._decodes(found, decodes)), None)
            if found is None:
                return
            yield found
            stop = found.offset

    def _record(self, offset: int) -> _Found | None:
        """The record at a place, if there can be one."""
        reader = ByteReader(io.BytesIO(self._data[offset : offset + _MAX_RECORD_SIZE]))
        try:
            record = read_record(reader, single=self._header.single)
        except FormatError:
            return None
        if isinstance(record, TrailerMark) or offset + record.size > len(self._data):
            return None
        return None if record.method is Method.MODEL and not self._header.uses_model else _Found(record, offset)

    def _decodes(self, found: _Found, decodes: Decodes) -> bool:
        return decodes(self._header, found.record, self._chunk(found).payload)

    def _chunk(self, found: _Found, *, sure: bool = False) -> Chunk:
        payload = self._data[found.stop - found.record.payload_length : found.stop]
        return Chunk(self._header, found.record, found.offset, None, payload, sure)
