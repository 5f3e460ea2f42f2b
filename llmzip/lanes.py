"""Decoding: many chunks side by side, one lane each, a token of every lane at a time.

What the lanes share goes through arrays, so that the interpreter's part of a token is little more than the
two calls of the entropy coder. A lane that meets an error ends with it; the others do not notice.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.codec import Codec
from llmzip.conditioning.conditioner import Steering
from llmzip.entropy import TokenDecoder
from llmzip.errors import FormatError
from llmzip.exact.backend import Floats
from llmzip.exact.transformer import Segment, in_blocks

Indices = NDArray[np.int32]

# Tokens that a lane has room for at first; a chunk of more doubles it.
ROOM = 4096


class Lanes:
    """The lanes of one thread, by index: their payloads, tokens and places in their windows.

    A lane is in use from `begin` until `finished` names it and `end` gives its bytes.
    """

    def __init__(self, codec: Codec, n_lanes: int) -> None:
        self._codec = codec
        self._cache = codec.transformer.new_cache(n_lanes, codec.windowing.window)
        # Sizes in bytes of all tokens that the coder can say; 0 beyond the vocabulary.
        sizes = np.diff(codec.artefact.vocabulary.offsets).astype(np.int64)
        self._sizes = np.concatenate([sizes, np.zeros(codec.bucket_size**2 - len(sizes), np.int64)])
        self._decoders: list[TokenDecoder | None] = [None] * n_lanes
        self._errors: dict[int, FormatError] = {}
        self._tokens = np.zeros((n_lanes, ROOM), dtype=np.int32)
        self._n_tokens = np.zeros(n_lanes, dtype=np.int32)
        self._n_inputs = np.zeros(n_lanes, dtype=np.int32)
        self._inputs = np.zeros(n_lanes, dtype=np.int32)
        self._left = np.zeros(n_lanes, dtype=np.int64)
        self._steerings = [codec.steerings[0]] * n_lanes
        # Of a chunk's own vectors that are still to come, behind its first window.
        self._brings_vectors = np.zeros(n_lanes, dtype=np.bool_)

    def begin(self, lane: int, payload: bytes, raw_length: int) -> None:
        """Put a chunk into a lane; raises `FormatError` for a payload that cannot be one."""
        decoder = TokenDecoder(payload)
        found = self._codec.conditioning.set
        choice = found.read_choice(decoder)
        self._steer(lane, self._codec.steering(choice))
        self._brings_vectors[lane] = found.brings_vectors(choice)
        self._decoders[lane] = decoder
        self._errors.pop(lane, None)
        self._n_tokens[lane] = self._n_inputs[lane] = 0
        self._left[lane] = raw_length

    def _steer(self, lane: int, steering: Steering) -> None:
        self._steerings[lane] = steering
        self._cache.steer(lane, steering.shifts)

    def step(self, lanes: Indices) -> None:
        """Decode one token of each of `lanes`."""
        self._open_windows(lanes)
        inputs, table = self._inputs[lanes], self._codec.steerings.table
        hidden = self._codec.transformer.step(self._cache, lanes, self._n_inputs[lanes], inputs, table)
        self._n_inputs[lanes] += 1
        first = 0
        for part in self._codec.output_parts(hidden):
            some = lanes[first : first + len(part)]
            self._accept(some, self._choose(some, *self._codec.predict(part)))
            first += len(part)

    def finished(self, lanes: Indices) -> Indices:
        """Those of `lanes` whose bytes are all there, or that have met an error."""
        return lanes[self._left[lanes] <= 0]

    def end(self, lane: int) -> bytes:
        """The bytes of a finished lane, or its `FormatError`."""
        if lane in self._errors:
            raise self._errors[lane]
        return self._codec.artefact.vocabulary.decode(self._tokens[lane, : self._n_tokens[lane]])

    def _open_windows(self, lanes: Indices) -> None:
        """Begin a window in those lanes that stand before one: all that its first coded token follows but one token."""
        windowing = self._codec.windowing
        n_inputs = self._n_inputs[lanes]
        segments = []
        for lane in lanes[self._brings_vectors[lanes] & (n_inputs == windowing.window)].tolist():
            self._take_vectors(lane)
        for lane in lanes[(n_inputs == 0) | (n_inputs == windowing.window)].tolist():
            n_tokens = self._n_tokens[lane]
            overlap = self._tokens[lane, n_tokens - min(windowing.overlap, n_tokens) : n_tokens]
            seen = np.concatenate([self._codec.beginning(self._steerings[lane]), overlap])
            segments.append(Segment(lane, 0, seen[:-1]))
            self._n_inputs[lane], self._inputs[lane] = len(seen) - 1, seen[-1]
        for block in in_blocks(segments, self._codec.sizes.rows):
            self._codec.transformer.hidden(self._cache, block, self._codec.steerings.table)

    def _take_vectors(self, lane: int) -> None:
        """Read the vectors that a chunk brings behind its first window."""
        chunk_vectors, decoder = self._codec.conditioning.set.chunk_vectors, self._decoders[lane]
        assert chunk_vectors is not None
        self._brings_vectors[lane] = False
        if decoder is not None:
            try:
                vectors = chunk_vectors.read_rows(decoder, self._tokens[lane, : self._n_tokens[lane]])
            except FormatError as error:
                self._fail(lane, error)
            else:
                self._steer(lane, self._codec.shifted(vectors.conditioner().shifts))

    def _choose(self, lanes: Indices, weights: NDArray[np.int32], frequencies: Floats) -> Indices:
        """The tokens that the payloads say, given the model's weights `[R, V]` and the frequencies of buckets."""
        codec = self._codec
        buckets = self._decode(lanes, frequencies)
        n_buckets = -(-codec.artefact.spec.vocab_size // codec.bucket_size)
        inside = np.minimum(buckets, np.int32(n_buckets - 1))
        members = self._decode(lanes, codec.backend.member_frequencies(weights, inside, codec.bucket_size))
        return buckets * np.int32(codec.bucket_size) + members

    def _decode(self, lanes: Indices, frequencies: Floats) -> Indices:
        """The next symbol of each lane's payload; 0 after an error."""
        symbols = np.zeros(len(lanes), dtype=np.int32)
        for i, lane in enumerate(lanes.tolist()):
            decoder = self._decoders[lane]
            if decoder is not None:
                try:
                    symbols[i] = decoder.decode(frequencies[i])
                except FormatError as error:
                    self._fail(lane, error)
        return symbols

    def _accept(self, lanes: Indices, tokens: Indices) -> None:
        """Take the decoded tokens; one that no encoder can have written is an error."""
        n_tokens = self._n_tokens[lanes]
        if n_tokens.max(initial=0) == self._tokens.shape[1]:
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)], axis=1)
        sizes = self._sizes[tokens]
        left = self._left[lanes]
        wrong = (sizes < 1) | (sizes > left)
        if wrong.any():
            self._refuse(lanes[wrong], sizes[wrong], left[wrong])
        self._tokens[lanes, n_tokens] = self._inputs[lanes] = tokens
        self._n_tokens[lanes] = n_tokens + 1
        self._left[lanes] = left - sizes
        for lane in self._errors:
            self._left[lane] = 0

    def _refuse(self, lanes: Indices, sizes: NDArray[np.int64], left: NDArray[np.int64]) -> None:
        for lane, size, n_bytes in zip(lanes.tolist(), sizes, left, strict=True):
            if lane not in self._errors:
                expected = f"expected a token of 1 to {n_bytes} bytes, found one of {size}"
                self._fail(lane, FormatError(f"model payload: {expected}"))

    def _fail(self, lane: int, error: FormatError) -> None:
        self._errors[lane], self._decoders[lane] = error, None


class _Job(NamedTuple):
    payload: bytes
    raw_length: int
    result: Future[bytes]


class LaneDecoder:
    """Decodes chunks in lanes on several threads; results come as futures.

    Args:
        codec: the model and the windows.
        n_lanes: chunks in progress at once, all threads together.
        n_threads: threads, each with its share of the lanes.
    """

    def __init__(self, codec: Codec, n_lanes: int, n_threads: int) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = False
        n_threads = min(n_threads, n_lanes)
        shares = [n_lanes // n_threads + (i < n_lanes % n_threads) for i in range(n_threads)]
        # Made here, not on the threads, so that the caller has the error if there is no memory for them.
        all_lanes = [(Lanes(codec, share), share) for share in shares]
        self._threads = [threading.Thread(target=self._run, args=lanes, daemon=True) for lanes in all_lanes]
        for thread in self._threads:
            thread.start()

    def submit(self, payload: bytes, raw_length: int) -> Future[bytes]:
        """Queue a chunk; the future gives its bytes or raises `FormatError`.

        Where a thread met an error of any other kind, the future may raise that.
        """
        result: Future[bytes] = Future()
        self._jobs.put(_Job(payload, raw_length, result))
        return result

    def close(self) -> None:
        """Stop the threads; chunks that are not finished never will be."""
        self._stopped = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, lanes: Lanes, n_lanes: int) -> None:
        active: dict[int, _Job] = {}
        try:
            self._decode(lanes, list(range(n_lanes)), active)
        except BaseException as error:  # noqa: BLE001 (those who wait for the chunks raise it)
            for job in active.values():
                job.result.set_exception(error)
            self._refuse_all(error)

    def _decode(self, lanes: Lanes, free: list[int], active: dict[int, _Job]) -> None:
        """Decode what is queued until the end; `active` always has the chunks without a result."""
        while not self._stopped and self._fill(lanes, free, active):
            indices = np.array(list(active), dtype=np.int32)
            lanes.step(indices)
            for lane in lanes.finished(indices).tolist():
                _settle(lanes, lane, active[lane])
                del active[lane]
                free.append(lane)

    def _fill(self, lanes: Lanes, free: list[int], active: dict[int, _Job]) -> bool:
        """Give free lanes the queued chunks, waiting only if no lane is active; False at the end."""
        while free:
            try:
                job = self._jobs.get(block=not active)
            except queue.Empty:
                break
            if job is None:
                return bool(active)
            lane = free.pop()
            active[lane] = job
            try:
                lanes.begin(lane, job.payload, job.raw_length)
            except FormatError as error:
                active.pop(lane).result.set_exception(error)
                free.append(lane)
        return True

    def _refuse_all(self, error: BaseException) -> None:
        """Give the error to what is queued, now or later, until the end: no one else may be there to take it."""
        while not self._stopped and (job := self._jobs.get()) is not None:
            job.result.set_exception(error)


def _settle(lanes: Lanes, lane: int, job: _Job) -> None:
    try:
        job.result.set_result(lanes.end(lane))
    except FormatError as error:
        job.result.set_exception(error)
