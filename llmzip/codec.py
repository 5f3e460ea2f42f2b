"""The chunk codec: a model's predictions, window by window, and the range coder.

A chunk's tokens are covered by windows. The first begins with BOS and codes `window` tokens; each
further one begins with BOS and the last `overlap` tokens, and codes `window - overlap`. The encoder
knows all tokens and evaluates windows whole, in any order, on any thread; the decoder (`llmzip.lanes`) steps
through many chunks at once, one lane each. Both get the same integers from the engine, whatever the batch.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.entropy import TokenEncoder, bucket_size
from llmzip.errors import ConfigError
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
# Chunks that become tokens together, on all threads of the tokenizer; it takes thirty times their size in memory.
TOKENISED_TOGETHER = 16


class Window(NamedTuple):
    """One window of a chunk: it sees `tokens[start:stop - 1]` after BOS and codes `tokens[coded:stop]`."""

    start: int
    coded: int
    stop: int


# A window of a chunk of tokens, and the frequencies of buckets and members for what it codes, part by part.
Work = tuple[Tokens, Window]
Coded = list[tuple[Floats, Floats]]
Apply = Callable[[Callable[[Work], Coded], Iterable[Work]], Iterator[Coded]]


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
        self.artefact = artefact
        self.windowing = self._checked(windowing)
        self.backend = load_backend()
        self.transformer = Transformer(artefact.spec, artefact.parameters, self.backend)
        self.bucket_size = bucket_size(artefact.spec.vocab_size)
        self._caches = threading.local()

    def with_windowing(self, windowing: Windowing) -> Codec:
        """The same model with other windows; it is not loaded again."""
        codec = copy.copy(self)
        codec.windowing = self._checked(windowing)
        codec._caches = threading.local()
        return codec

    @staticmethod
    def _checked(windowing: Windowing) -> Windowing:
        if not 0 <= windowing.overlap < windowing.window:
            raise ConfigError(f"window: expected an overlap below {windowing.window} tokens, found {windowing.overlap}")
        return windowing

    def tokenise(self, chunks: Sequence[bytes]) -> list[Tokens]:
        """The tokens of chunks of raw bytes; they give back the same bytes."""
        return self._tokenizer.encode_batch(list(chunks))

    def tokenise_ahead(self, chunks: Iterable[bytes]) -> Iterator[Tokens]:
        """`tokenise`, a few chunks ahead of what is taken."""
        left = iter(chunks)
        while batch := list(itertools.islice(left, TOKENISED_TOGETHER)):
            yield from self.tokenise(batch)

    @functools.cached_property
    def _tokenizer(self) -> ByteTokenizer:
        """Only encoding needs it."""
        return ByteTokenizer(self.artefact.tokenizer_json, self.artefact.vocabulary)

    def canary(self) -> bytes:
        """Two bytes that differ where the engine computes anything else. SPEC.md, section 3.3."""
        return self._canary

    @functools.cached_property
    def _canary(self) -> bytes:
        spec = self.artefact.spec
        tokens = (np.arange(CANARY_TOKENS, dtype=np.int64) * 7919 % spec.vocab_size).astype(np.int32)
        tokens[0] = spec.bos_id
        cache = self.transformer.new_cache(1, CANARY_TOKENS)
        weights, _ = self.predict(self.transformer.hidden(cache, [Segment(0, 0, tokens)]))
        return hashlib.sha256(weights.astype("<i4").tobytes()).digest()[:CANARY_SIZE]

    def encode(self, chunks: Iterable[Tokens], apply: Apply) -> Iterator[bytes]:
        """The payloads of chunks of tokens, in order; `apply` is `map`, or that of a pool of threads, over windows."""
        begun: deque[tuple[Tokens, list[Window]]] = deque()

        def works() -> Iterator[Work]:
            for tokens in chunks:
                windows = list(self.windowing.cover(len(tokens)))
                begun.append((tokens, windows))
                yield from ((tokens, window) for window in windows)

        results = apply(lambda work: list(self._code_window(*work)), works())
        for first in results:
            tokens, windows = begun.popleft()
            parts = itertools.chain([first], itertools.islice(results, len(windows) - 1))
            yield self._encode_chunk(tokens, itertools.chain.from_iterable(parts))

    def _encode_chunk(self, tokens: Tokens, parts: Iterable[tuple[Floats, Floats]]) -> bytes:
        """The payload of a chunk, given the frequencies of all its tokens, part by part."""
        encoder = TokenEncoder(self.bucket_size)
        coded = 0
        for buckets, members in parts:
            encoder.encode(tokens[coded : coded + len(buckets)], buckets, members)
            coded += len(buckets)
        return encoder.finish()

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
            for part in self.output_parts(hidden):
                weights, buckets = self.predict(part)
                own = tokens[target : target + len(part)] // self.bucket_size
                target += len(part)
                yield buckets, self.backend.member_frequencies(weights, own.astype(np.int32), self.bucket_size)

    def output_parts(self, hidden: Floats) -> Iterator[Floats]:
        """Rows of `hidden` in parts whose logits lie in memory together."""
        n_rows = max(1, OUTPUT_ELEMENTS // self.artefact.spec.vocab_size // TILE_ROWS) * TILE_ROWS
        for first in range(0, len(hidden), n_rows):
            yield hidden[first : first + n_rows]

    def predict(self, hidden: Floats) -> tuple[NDArray[np.int32], Floats]:
        """The engine's integer weights of all tokens, `[R, V]`, and the frequencies of their buckets, `[R, n]`."""
        return self.transformer.predict(hidden, self.bucket_size)

    def _own_cache(self) -> Cache:
        """One lane for each thread, made when it is first needed."""
        if not hasattr(self._caches, "cache"):
            self._caches.cache = self.transformer.new_cache(1, self.windowing.window)
        cache: Cache = self._caches.cache
        return cache
