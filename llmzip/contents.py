"""Which members an archive holds, and their bytes, decoding no other chunks than those that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from llmzip.decoding import decode_range
from llmzip.errors import ChecksumError, ConfigError, FileMissingError, FormatError
from llmzip.format import FrameIndex, FrameSummary
from llmzip.format.limits import DIGEST_SIZE
from llmzip.format.trailer import LENGTH_SIZE
from llmzip.members import Member, check_count, check_members, check_sizes, members_of, printable
from llmzip.model_decoders import ModelDecoders
from llmzip.options import DecompressOptions


@dataclass(frozen=True)
class Place:
    """A member, and where its content begins in that of the archive."""

    member: Member
    start: int

    @property
    def stop(self) -> int:
        """Where its content ends."""
        return self.start + self.member.size


def find_members(file: BinaryIO) -> list[Place]:
    """All members of an archive, in order, without decoding it.

    Args:
        file: an archive that can seek.

    Raises:
        FormatError: the archive is damaged; a table is not allowed, or differs from its frame's content.
        ConfigError: there is a frame without a table.
    """
    places: list[Place] = []
    for frame in FrameIndex(file).frames:
        places += _places_of(frame)
        check_count(len(places))
    check_members(place.member for place in places)
    return places


def _places_of(frame: FrameSummary) -> Iterator[Place]:
    members = members_of(frame.sections)
    if members is None:
        raise ConfigError("expected an archive of files, found content without names; run: llmzip decompress")
    check_sizes(members, frame.raw_length, frame.offset)
    start = frame.raw_offset
    for member in members:
        yield Place(member, start)
        start += member.size


def select(places: Sequence[Place], names: Sequence[bytes]) -> list[Place]:
    """The members of these names and all below them; all members where no name is given, or the folder itself.

    Args:
        places: all members.
        names: as a shell completes them: `./a/` is `a`.

    Raises:
        FileMissingError: a name that is none of a member.
    """
    if not names:
        return list(places)
    wanted = {b"/".join(part for part in name.split(b"/") if part not in (b"", b".")) for name in names}
    if b"" in wanted:
        return list(places)
    found: set[bytes] = set()
    chosen = []
    for place in places:
        if own := wanted.intersection(_with_parents(place.member.path)):
            found |= own
            chosen.append(place)
    for name in sorted(wanted - found):
        raise FileMissingError("expected a member of the archive, found none of this name", path=printable(name))
    return chosen


def _with_parents(path: bytes) -> Iterator[bytes]:
    yield path
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def read_contents(
    file: BinaryIO, places: Sequence[Place], options: DecompressOptions
) -> Iterator[tuple[Place, Iterator[bytes]]]:
    """Each member and the pieces of its content, which are to be taken before the next member is.

    Args:
        file: the archive.
        places: in the order of the archive.
        options: where to find the model.

    Raises:
        FormatError: the archive is damaged.
        ModelError: the model that it needs is not there, or computes something else.
    """
    index = FrameIndex(file)
    with ModelDecoders(options) as decoders:
        for run in _neighbours(places):
            start, stop = run[0].start, run[-1].stop
            pieces = decode_range(index, start, stop, options, decoders) if start < stop else iter(())
            content = _Content(_checked(index, start, stop, pieces))
            for place in run:
                yield place, content.take(place.member.size)


def _checked(index: FrameIndex, start: int, stop: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A range, and where it holds a frame as a whole, that one's digest compared."""
    whole = [f for f in index.frames if f.digest and start <= f.raw_offset and f.raw_offset + f.raw_length <= stop]
    ends = {frame.raw_offset + frame.raw_length: frame for frame in whole}
    starts = {frame.raw_offset for frame in whole}
    digest, place = hashlib.sha256(), start
    for piece in pieces:
        if place in starts:
            digest = hashlib.sha256()
        digest.update(piece)
        place += len(piece)
        if place in ends:
            frame = ends[place]
            computed = digest.digest()[:DIGEST_SIZE]
            if computed != frame.digest:
                offset = frame.offset + frame.size - LENGTH_SIZE - DIGEST_SIZE
                raise ChecksumError.differs("content digest", offset, frame.digest or b"", computed)
        yield piece


def _neighbours(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Runs of members whose contents follow each other without a gap."""
    run: list[Place] = []
    for place in places:
        if run and place.start != run[-1].stop:
            yield run
            run = []
        run.append(place)
    if run:
        yield run


class _Content:
    """Pieces of bytes, cut anew."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def take(self, n: int) -> Iterator[bytes]:
        """The next `n` bytes."""
        while n:
            piece = self._rest or next(self._pieces, b"")
            if not piece:
                raise FormatError(f"expected {n} more bytes of content, found none", field="member")
            self._rest = piece[n:]
            yield piece[:n]
            n -= len(piece[:n])
