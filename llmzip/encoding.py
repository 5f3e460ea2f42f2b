"""Content to an archive: cut into chunks, coded by the model or what is smaller, written in order.

Chunks are taken in groups, within which neighbours may become one chunk. Where worker processes code, the next group
is under way while the methods of the one before are chosen.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from llmzip.chunking import split
from llmzip.defaults import LARGE_INPUT, default_chunk_size
from llmzip.format import FrameWriter, Sections
from llmzip.journal import Journal
from llmzip.loading import header_of, load_codec, start_workers
from llmzip.options import CompressOptions
from llmzip.resources import share_out

if TYPE_CHECKING:
    from llmzip.codec import Apply, Coded, Work
    from llmzip.worker_pool import WorkerPool

# Windows a thread that are coded, or will be next, while the first of them is taken.
_WINDOWS_AHEAD = 8

# Told the raw bytes done and the archive bytes done so far.
Progress = Callable[[int, int], None]
# A group's chunks, and what the model makes of each.
_Group = tuple[list[bytes], Iterator[bytes | None]]

GROUP_SIZE = LARGE_INPUT


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
        self._options = options
        self._codec = load_codec(options)
        self._writer = FrameWriter(target, header_of(self._codec), sections or Sections())
        self._chunk_size = options.chunk_size
        self._progress = progress or (lambda _raw, _archive: None)
        self._n_threads = share_out(self._codec, options, encode=True, large=False).n_threads
        self._pool = ThreadPoolExecutor(self._n_threads)
        self._workers: WorkerPool | None = None
        self._journal = Journal(journal, self._codec) if journal else None
        self._buffer = bytearray()
        self._groups: deque[_Group] = deque()
        self._broken = False

    def __enter__(self) -> StreamCompressor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def broken(self) -> bool:
        """Whether content was lost by an error on its way to the archive, which can have no end then."""
        return self._broken

    @property
    def n_raw(self) -> int:
        """Bytes of content that are in the archive so far."""
        return self._writer.n_raw

    @property
    def n_written(self) -> int:
        """Bytes of the archive so far."""
        return self._writer.n_written

    def write(self, data: bytes) -> None:
        """Take in more of the content.

        Raises:
            ValueError: an earlier call ended with an error.
        """
        with self._unbroken():
            self._buffer += data
            self._write_full_groups()

    def finish(self) -> None:
        """Code what is left and end the archive.

        Raises:
            ValueError: an earlier call ended with an error, so that the archive would have a hole.
        """
        with self._unbroken():
            if self._buffer:
                self._begin_group(self._split(bytes(self._buffer)), large=False)
                self._buffer.clear()
            self._write_groups(n_left=0)
            self._writer.finish()
        self._progress(self._writer.n_raw, self._writer.n_written)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        if self._broken:
            raise ValueError("compressor: expected one that had no error, found one that lost content by it")
        self._broken = True
        yield
        self._broken = False

    def _write_full_groups(self) -> None:
        while len(self._buffer) > GROUP_SIZE:
            # The last chunk of a full group may end where the group happens to: it goes to the next one.
            chunks = self._split(bytes(self._buffer[:GROUP_SIZE]))
            chunks = chunks[:-1] or chunks
            del self._buffer[: sum(map(len, chunks))]
            self._begin_group(chunks, large=True)
            self._write_groups(n_left=1 if self._workers else 0)

    def close(self) -> None:
        """Let threads and processes go; what is not coded never will be."""
        self._pool.shutdown(cancel_futures=True)
        if self._workers:
            self._workers.close()

    def _split(self, group: bytes) -> list[bytes]:
        """The chunks of a group, all of the size that the first group asked for."""
        if self._chunk_size is None:
            self._chunk_size = default_chunk_size(self._codec.artefact.spec, self._codec.windowing.window, len(group))
        return list(split(io.BytesIO(group), self._chunk_size))

    def _begin_group(self, chunks: list[bytes], *, large: bool) -> None:
        if self._workers is None:
            share = share_out(self._codec, self._options, encode=True, large=large)
            self._workers = start_workers(self._codec, share, encode=True)
        self._groups.append((chunks, self._model_payloads(chunks)))

    def _write_groups(self, n_left: int) -> None:
        while len(self._groups) > n_left:
            self._write_group(*self._groups.popleft())

    def _write_group(self, chunks: list[bytes], model_payloads: Iterator[bytes | None]) -> None:
        from llmzip.methods import plan

        raw_done, written = self._writer.n_raw, self._writer.n_written
        payloads: list[bytes | None] = []
        for raw, payload in zip(chunks, model_payloads, strict=True):
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
        return self._in_order(chunks, kept, missing, self._encode(list(missing.values())))

    def _in_order(
        self,
        chunks: Sequence[bytes],
        kept: Mapping[int, bytes | None],
        missing: Mapping[int, bytes],
        made: Iterator[bytes],
    ) -> Iterator[bytes | None]:
        """The payloads that were kept and those that are made, which are kept from now on."""
        for i, raw in enumerate(chunks):
            if i not in missing:
                yield kept.get(i)
                continue
            payload = next(made)
            if self._journal:
                self._journal.keep(raw, payload)
            yield payload

    def _encode(self, chunks: Sequence[bytes]) -> Iterator[bytes]:
        """The payloads of chunks, in order; worker processes begin at once."""
        if self._workers is None:
            apply = map_ahead(self._pool, self._n_threads)
            return self._codec.encode(self._codec.tokenise_ahead(chunks), apply)
        futures = [self._workers.submit(raw, len(raw)) for raw in chunks]
        return (future.result() for future in futures)


def map_ahead(pool: ThreadPoolExecutor, n_threads: int) -> Apply:
    """`map` on a pool's threads, no further ahead than keeps them busy: what is not taken lies in memory."""

    def apply(
        function: Callable[[Sequence[Work]], list[Coded]], batches: Iterable[Sequence[Work]]
    ) -> Iterator[list[Coded]]:
        futures: deque[Future[list[Coded]]] = deque()
        for works in batches:
            futures.append(pool.submit(function, works))
            if len(futures) > _WINDOWS_AHEAD * n_threads:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()

    return apply
