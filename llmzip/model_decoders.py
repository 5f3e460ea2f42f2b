"""What decodes the model's chunks: lanes in this process, worker processes where there is more to do."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llmzip.defaults import LARGE_INPUT
from llmzip.format import Header
from llmzip.loading import codec_of, start_workers
from llmzip.options import DecompressOptions
from llmzip.resources import Share, share_out

if TYPE_CHECKING:
    from llmzip.codec import Codec
    from llmzip.lanes import LaneDecoder
    from llmzip.worker_pool import WorkerPool

# Each has its lanes, which are most of the memory.
_MAX_OPEN = 2


class ModelDecoders:
    """Decodes chunks under the models and windows of their headers.

    Args:
        options: where to find models; threads, lanes and workers.
    """

    def __init__(self, options: DecompressOptions) -> None:
        self._options = options
        # The last one takes chunks; those before it are let go when theirs are done.
        self._open: deque[_Decoder] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popleft().close()

    def submit(self, header: Header, payload: bytes, raw_length: int) -> Future[bytes]:
        """Queue a chunk; the future gives its bytes or raises `FormatError`.

        Raises:
            ModelError: the model that the header asks for is not there, or computes something else.
            FormatError: windows that the model does not allow.
        """
        if not self._open or self._open[-1].header != header:
            if self._options.memory is not None:
                # Each takes all of it.
                self._let_go(0)
            self._open.append(_Decoder.of(header, self._options))
        elif (larger := self._open[-1].larger(self._options)) is not None:
            self._open.append(larger)
        self._let_go(_MAX_OPEN)
        return self._open[-1].submit(payload, raw_length)

    def _let_go(self, n_left: int) -> None:
        """Close the oldest that are done, and wait for those that are too many."""
        while len(self._open) > n_left or (len(self._open) > 1 and self._open[0].is_done()):
            self._open.popleft().finish()


class _Decoder:
    """Lanes or processes for one header, and the chunks that they have."""

    def __init__(self, header: Header, codec: Codec, decoder: LaneDecoder | WorkerPool, *, may_grow: bool) -> None:
        self.header = header
        self._codec = codec
        self._decoder = decoder
        # Asked for once, whatever the answer is.
        self._may_grow = may_grow
        self._n_raw = 0
        self._chunks: deque[Future[bytes]] = deque()

    @classmethod
    def of(cls, header: Header, options: DecompressOptions) -> _Decoder:
        """What a header asks for, before it is known how much there is."""
        codec = codec_of(header, options)
        share = share_out(codec, options, encode=False, large=False)
        workers = start_workers(codec, share, encode=False)
        # Both at once would take the memory that each of them may have.
        may_grow = workers is None and options.memory is None
        return cls(header, codec, workers or _lanes(codec, share), may_grow=may_grow)

    def larger(self, options: DecompressOptions) -> _Decoder | None:
        """One of processes, where there are to be some for more than this one has had."""
        if not self._may_grow or self._n_raw <= LARGE_INPUT:
            return None
        self._may_grow = False
        share = share_out(self._codec, options, encode=False, large=True)
        workers = start_workers(self._codec, share, encode=False)
        return None if workers is None else _Decoder(self.header, self._codec, workers, may_grow=False)

    def submit(self, payload: bytes, raw_length: int) -> Future[bytes]:
        """Queue a chunk."""
        self._n_raw += raw_length
        self._forget_done()
        self._chunks.append(self._decoder.submit(payload, raw_length))
        return self._chunks[-1]

    def is_done(self) -> bool:
        """Whether all chunks are."""
        self._forget_done()
        return not self._chunks

    def _forget_done(self) -> None:
        while self._chunks and self._chunks[0].done():
            self._chunks.popleft()

    def finish(self) -> None:
        """Wait for its chunks, and let threads or processes go."""
        try:
            wait(self._chunks)
        finally:
            self.close()

    def close(self) -> None:
        """Let threads or processes go; chunks that are not finished never will be."""
        self._decoder.close()


def _lanes(codec: Codec, share: Share) -> LaneDecoder:
    from llmzip.lanes import LaneDecoder

    return LaneDecoder(codec, share.n_lanes, share.n_threads)
