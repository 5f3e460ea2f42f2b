"""The chunk codec: a model's predictions, window by window, and the range coder.

A chunk's tokens are covered by windows. The first begins with BOS and codes `window` tokens; each
further one begins with BOS and the last `overlap` tokens, and codes `window - overlap`. The encoder
knows all tokens and evaluates windows whole, in any order, on any thread; the decoder steps through
many chunks at once, one lane each. Both get the same integers from the engine, whatever the batch.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.entropy import TokenDecoder, TokenEncoder, bucket_size
from llmzip.errors import ConfigError, FormatError
from llmzip.exact.backend import Cache, Floats, load_backend
from llmzip.exact.transformer import Segment, Transformer
from llmzip.format.limits import CANARY_SIZE
from llmzip.models.artefact import Artefact
from llmzip.tokens.tokenizer import ByteTokenizer

Tokens = NDArray[np.int32]

# Rows that go through the layers together: 126 are 21 tiles of six and keep a layer's activations in a
# 1 MB cache; more rows do not make the products faster.
BLOCK_ROWS = 126
# Elements of logits held at once, for the same reason.
OUTPUT_ELEMENTS = 1 << 20
TILE_ROWS = 6
CANARY_TOKENS = 16


class Window(NamedTuple):
    """One window of a chunk: it sees `tokens[start:stop - 1]` after BOS and codes `tokens[coded:stop]`."""

    start: int
    coded: int
    stop: int


@dataclass(frozen=True)
class Windowing:
    """How a chunk's tokens are covered. SPEC.md, section 9."""

    window: int
    overlap: int

    def cover(self, n_tokens: int) -> Iterator[Window]:
        """The windows of a chunk of `n_tokens` tokens, in order."""
        start = coded = 0
        while coded < n_tokens:
            stop = min(start + self.window, n_tokens) if coded == 0 else min(coded + self._step, n_tokens)
            yield Window(start, coded, stop)
            coded = stop
            start = stop - self.overlap

    @property
    def _step(self) -> int:
        return self.window - self.overlap


class Codec:
    """Codes chunks with one model; safe to use from several threads."""

    def __init__(self, artefact: Artefact, windowing: Windowing) -> None:
        if not 0 <= windowing.overlap < windowing.window:
            raise ConfigError(f"window: expected an overlap below {windowing.window} tokens, found {windowing.overlap}")
        self.artefact = artefact
        self.windowing = windowing
        self.backend = load_backend()
        self.transformer = Transformer(artefact.spec, artefact.parameters, self.backend)
        self.bucket_size = bucket_size(artefact.spec.vocab_size)
        self._caches = threading.local()

    def tokenise(self, chunks: Sequence[bytes]) -> list[Tokens]:
        """The tokens of chunks of raw bytes; they give back the same bytes."""
        return self._tokenizer.encode_batch(list(chunks))

    @functools.cached_property
    def _tokenizer(self) -> ByteTokenizer:
        """Only encoding needs it."""
        return ByteTokenizer(self.artefact.tokenizer_json, self.artefact.vocabulary)

    @functools.cache  # noqa: B019 (a codec lives as long as the process, or as its cache in archive.py)
    def canary(self) -> bytes:
        """Two bytes that differ where the engine computes anything else. SPEC.md, section 3.3."""
        spec = self.artefact.spec
        tokens = (np.arange(CANARY_TOKENS, dtype=np.int64) * 7919 % spec.vocab_size).astype(np.int32)
        tokens[0] = spec.bos_id
        cache = self.transformer.new_cache(1, CANARY_TOKENS)
        weights = self._weights(self.transformer.hidden(cache, [Segment(0, 0, tokens)]))
        return hashlib.sha256(weights.astype("<i4").tobytes()).digest()[:CANARY_SIZE]

    def encode(self, chunks: Sequence[Tokens], pool: ThreadPoolExecutor) -> Iterator[bytes]:
        """The payloads of chunks of tokens, in order; windows run on the pool's threads."""
        plans = [list(self.windowing.cover(len(tokens))) for tokens in chunks]
        results = pool.map(
            lambda work: list(self._code_window(*work)),
            [(tokens, window) for tokens, windows in zip(chunks, plans, strict=True) for window in windows],
        )
        for tokens, windows in zip(chunks, plans, strict=True):
            encoder = TokenEncoder(self.bucket_size)
            for window in windows:
                coded = window.coded
                for buckets, members in next(results):
                    encoder.encode(tokens[coded : coded + len(buckets)], buckets, members)
                    coded += len(buckets)
            yield encoder.finish()

    def _code_window(self, tokens: Tokens, window: Window) -> Iterator[tuple[Floats, Floats]]:
        """Frequencies of the buckets and members for the coded tokens of one window."""
        bos = np.array([self.artefact.spec.bos_id], dtype=np.int32)
        inputs = np.concatenate([bos, tokens[window.start : window.stop - 1]])
        n_context = window.coded - window.start
        cache = self._own_cache()
        for first in range(0, len(inputs), BLOCK_ROWS):
            block = inputs[first : first + BLOCK_ROWS]
            hidden = self.transformer.hidden(cache, [Segment(0, first, block)])
            hidden = hidden[max(0, n_context - first) :]
            target = window.start + max(first, n_context)
            for part in self._output_parts(hidden):
                weights = self._weights(part)
                own = tokens[target : target + len(part)] // self.bucket_size
                target += len(part)
                yield (
                    self.backend.bucket_frequencies(weights, self.bucket_size),
                    self.backend.member_frequencies(weights, own.astype(np.int32), self.bucket_size),
                )

    def _output_parts(self, hidden: Floats) -> Iterator[Floats]:
        n_rows = max(1, OUTPUT_ELEMENTS // self.artefact.spec.vocab_size // TILE_ROWS) * TILE_ROWS
        for first in range(0, len(hidden), n_rows):
            yield hidden[first : first + n_rows]

    def _weights(self, hidden: Floats) -> NDArray[np.int32]:
        return self.backend.output_weights(self.transformer.logits(hidden))

    def _own_cache(self) -> Cache:
        """One lane for each thread, made when it is first needed."""
        if not hasattr(self._caches, "cache"):
            self._caches.cache = self.transformer.new_cache(1, self.windowing.window)
        cache: Cache = self._caches.cache
        return cache

    def decode_step(self, cache: Cache, lanes: Sequence[Lane]) -> list[int]:
        """Advance lanes by one token each: the last rows of their segments choose it."""
        segments = []
        for lane in lanes:
            segment = lane.next_segment()
            self._prefill(cache, segment)
            last = len(segment.tokens) - 1
            segments.append(Segment(segment.lane, segment.position + last, segment.tokens[last:]))
        hidden = self.transformer.hidden(cache, segments)
        tokens: list[int] = []
        for part in self._output_parts(hidden):
            tokens += self._choose(lanes[len(tokens) : len(tokens) + len(part)], self._weights(part))
        return tokens

    def _prefill(self, cache: Cache, segment: Segment) -> None:
        """Fill the cache with all tokens of a segment but the last."""
        for first in range(0, len(segment.tokens) - 1, BLOCK_ROWS):
            block = segment.tokens[first : min(first + BLOCK_ROWS, len(segment.tokens) - 1)]
            self.transformer.hidden(cache, [Segment(segment.lane, segment.position + first, block)])

    def _choose(self, lanes: Sequence[Lane], weights: NDArray[np.int32]) -> list[int]:
        rows = self.backend.bucket_frequencies(weights, self.bucket_size)
        buckets = [lane.decode(row) for lane, row in zip(lanes, rows, strict=True)]
        n_buckets = -(-self.artefact.spec.vocab_size // self.bucket_size)
        safe = np.minimum(np.array(buckets, dtype=np.int32), n_buckets - 1)
        rows = self.backend.member_frequencies(weights, safe, self.bucket_size)
        members = [lane.decode(row) for lane, row in zip(lanes, rows, strict=True)]
        return [bucket * self.bucket_size + member for bucket, member in zip(buckets, members, strict=True)]


class Lane:
    """One chunk on its way from payload to bytes."""

    def __init__(self, index: int, codec: Codec, payload: bytes, raw_length: int) -> None:
        self._index = index
        self._codec = codec
        self._decoder = TokenDecoder(payload)
        self._left = raw_length
        self._tokens: list[int] = []
        self._n_inputs = 0
        self.error: FormatError | None = None

    def next_segment(self) -> Segment:
        """The tokens that the model must see before the next one can be decoded."""
        windowing, bos = self._codec.windowing, self._codec.artefact.spec.bos_id
        if self._n_inputs in (0, windowing.window):
            overlap = self._tokens[len(self._tokens) - windowing.overlap :] if self._tokens else []
            inputs = [bos, *(overlap if windowing.overlap else [])]
            self._n_inputs = len(inputs)
            return Segment(self._index, 0, np.array(inputs, dtype=np.int32))
        self._n_inputs += 1
        return Segment(self._index, self._n_inputs - 1, np.array(self._tokens[-1:], dtype=np.int32))

    def decode(self, frequencies: Floats) -> int:
        """The next symbol of the payload; 0 after an error, which `finished` reports."""
        if self.error is not None:
            return 0
        try:
            return self._decoder.decode(frequencies)
        except FormatError as error:
            self.error = error
            return 0

    def accept(self, token: int) -> None:
        """Take the decoded token; one that no encoder can have written is an error."""
        vocabulary = self._codec.artefact.vocabulary
        size = int(vocabulary.offsets[token + 1] - vocabulary.offsets[token]) if token < len(vocabulary) else 0
        if self.error is None and not 0 < size <= self._left:
            self.error = FormatError(f"model payload: expected a token of 1 to {self._left} bytes, found one of {size}")
        self._tokens.append(token)
        self._left -= size

    @property
    def finished(self) -> bool:
        """Whether all bytes are there, or none more can come."""
        return self._left == 0 or self.error is not None

    def content(self) -> bytes:
        """The decoded bytes."""
        return self._codec.artefact.vocabulary.decode(np.array(self._tokens, dtype=np.int32))


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
        self._codec = codec
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = False
        n_threads = min(n_threads, n_lanes)
        shares = [n_lanes // n_threads + (i < n_lanes % n_threads) for i in range(n_threads)]
        self._threads = [threading.Thread(target=self._run, args=(share,), daemon=True) for share in shares]
        for thread in self._threads:
            thread.start()

    def submit(self, payload: bytes, raw_length: int) -> Future[bytes]:
        """Queue a chunk; the future gives its bytes or raises `FormatError`."""
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

    def _run(self, n_lanes: int) -> None:
        cache = self._codec.transformer.new_cache(n_lanes, self._codec.windowing.window)
        free = list(range(n_lanes))
        active: dict[int, tuple[Lane, _Job]] = {}
        while not self._stopped:
            if not self._fill(free, active):
                return
            lanes = [lane for lane, _ in active.values()]
            try:
                tokens = self._codec.decode_step(cache, lanes)
            except BaseException as error:
                for _, job in active.values():
                    job.result.set_exception(error)
                raise
            for lane, token in zip(lanes, tokens, strict=True):
                lane.accept(token)
            for index in [index for index, (lane, _) in active.items() if lane.finished]:
                lane, job = active.pop(index)
                free.append(index)
                if lane.error is not None:
                    job.result.set_exception(lane.error)
                else:
                    job.result.set_result(lane.content())

    def _fill(self, free: list[int], active: dict[int, tuple[Lane, _Job]]) -> bool:
        """Give free lanes the queued chunks, waiting only if no lane is active; False at the end."""
        while free:
            try:
                job = self._jobs.get(block=not active)
            except queue.Empty:
                break
            if job is None:
                return bool(active)
            try:
                lane = Lane(free[-1], self._codec, job.payload, job.raw_length)
            except FormatError as error:
                job.result.set_exception(error)
                continue
            active[free.pop()] = (lane, job)
        return True
