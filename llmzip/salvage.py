"""What is left of a damaged archive: every chunk that decodes, and which bytes of the content are lost."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from llmzip.decoding import decode_each
from llmzip.encoding import Progress
from llmzip.errors import FormatError, LimitError
from llmzip.format import ChunkPlace, ChunkRecord, Header
from llmzip.format.limits import DIGEST_SIZE
from llmzip.format.recovery import Chunk, FrameEnd, Gap, recover
from llmzip.loading import check_place
from llmzip.model_decoders import ModelDecoders
from llmzip.options import DecompressOptions
from llmzip.resources import check_size


class Loss(NamedTuple):
    """Content that is lost.

    Attributes:
        start: its first byte in the content; None where the length of something lost before it is not known.
        n_raw: how many bytes; None if that is not known.
        offset: the place in the archive.
        n_saved: bytes of content that were written before it.
        reason: what is wrong there.
        sure: the place and the number are certain; else they rest on the record of a damaged chunk, this or one before.
    """

    start: int | None
    n_raw: int | None
    offset: int
    n_saved: int
    reason: str
    sure: bool = True

    def __str__(self) -> str:
        if self.start is None or self.n_raw is None:
            amount = "an unknown number of bytes" if self.n_raw is None else f"{self.n_raw} bytes"
            where = f"{amount} behind the first {self.n_saved} that were saved"
        else:
            where = f"bytes {self.start} to {self.start + self.n_raw - 1} of the content"
        doubt = "" if self.sure else ", if the damaged chunk is right about its length"
        return f"lost: {where}{doubt}: {self.reason}"


def salvage_stream(
    source: BinaryIO, target: BinaryIO, options: DecompressOptions, progress: Progress | None = None
) -> list[Loss]:
    """Write all content that can still be decoded.

    Args:
        source: an archive that can seek.
        target: opened for writing.
        options: where to find the model.
        progress: told the bytes written and the bytes of the archive passed so far.

    Returns:
        What is not in the target, in order; nothing where the archive is whole.

    Raises:
        ModelError: a model that is needed is not there, or computes something else.
    """
    return _Salvage(source, target, options, progress).run()


class _Salvage:
    def __init__(
        self, source: BinaryIO, target: BinaryIO, options: DecompressOptions, progress: Progress | None
    ) -> None:
        self._source, self._target, self._options, self._progress = source, target, options, progress
        # Found, but not yet decoded: chunks, and gaps between them.
        self._ahead: deque[Chunk | Gap | FrameEnd] = deque()
        self._losses: list[Loss] = []
        self._n_saved = 0
        # The content up to what was settled last; None behind a gap of unknown length.
        self._n_passed: int | None = 0
        # Whether all that was lost before had a length that is certain.
        self._sure = True
        # Content of all chunks that were found.
        self._n_found = 0
        # For chunks that may be none: one at a time, so that one lane is enough.
        self._trials = ModelDecoders(replace(options, lanes=1, threads=1, workers=0))
        # Of the frame at hand: a hash of its content, and whether that is whole so far.
        self._digest, self._whole = hashlib.sha256(), True

    def run(self) -> list[Loss]:
        with self._trials:
            for place, raw in decode_each(self._chunks(), self._options):
                self._settle_gaps()
                self._settle_chunk(place, raw)
        self._settle_gaps()
        return self._losses

    def _chunks(self) -> Iterator[tuple[Header, ChunkPlace, bytes]]:
        for part in recover(self._source, self._decodes):
            self._ahead.append(part)
            if isinstance(part, Chunk):
                self._check(part)
                yield part.header, ChunkPlace(part.record, part.offset, part.raw_offset or 0), part.payload

    def _settle_gaps(self) -> None:
        """Settle what stands before the next chunk."""
        while self._ahead and not isinstance(part := self._ahead[0], Chunk):
            self._ahead.popleft()
            if isinstance(part, FrameEnd):
                self._settle_end(part)
            else:
                self._settle_gap(part)

    def _settle_gap(self, gap: Gap) -> None:
        self._whole = False
        if gap.n_raw != 0:
            reason = f"nothing that can be read at offsets {gap.start} to {gap.stop - 1} of the archive"
            if gap.start == gap.stop:
                reason = f"an end is missing at offset {gap.start} of the archive"
            self._losses.append(Loss(self._n_passed, gap.n_raw, gap.start, self._n_saved, reason, self._sure))
        self._pass(gap.n_raw)

    def _settle_end(self, end: FrameEnd) -> None:
        """Chunks that all decode may still not be those of the frame."""
        if self._whole and end.digest is not None and self._digest.digest()[:DIGEST_SIZE] != end.digest:
            reason = "what was saved is not what the content digest stands for"
            self._losses.append(Loss(None, None, 0, self._n_saved, reason))
        self._digest, self._whole = hashlib.sha256(), True

    def _settle_chunk(self, place: ChunkPlace, raw: bytes | FormatError) -> None:
        part = self._ahead.popleft()
        if isinstance(raw, FormatError):
            self._whole = False
            self._sure &= isinstance(part, Chunk) and part.sure
            n_raw = place.record.raw_length
            self._losses.append(Loss(self._n_passed, n_raw, place.offset, self._n_saved, str(raw), self._sure))
        else:
            self._target.write(raw)
            self._digest.update(raw)
            self._n_saved += len(raw)
        self._pass(place.record.raw_length)
        if self._progress:
            self._progress(self._n_saved, place.offset + place.record.size)

    def _pass(self, n_raw: int | None) -> None:
        self._n_passed = None if self._n_passed is None or n_raw is None else self._n_passed + n_raw

    def _check(self, chunk: Chunk) -> None:
        """Refuse what is more than is allowed; content that does not decode counts as well."""
        self._n_found += chunk.record.raw_length
        check_size(self._n_found, self._options, chunk.offset)
        check_place(chunk.header, ChunkPlace(chunk.record, chunk.offset, 0), self._options)

    def _decodes(self, header: Header, record: ChunkRecord, payload: bytes) -> bool:
        place = ChunkPlace(record, 0, 0)
        try:
            check_place(header, place, self._options)
        except LimitError:
            return False
        trial = decode_each(iter([(header, place, payload)]), self._options, self._trials)
        return all(not isinstance(raw, FormatError) for _, raw in trial)
