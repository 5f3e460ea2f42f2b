"""The chunk codec: a model's predictions, window by window, and the range coder.

The encoder knows all tokens and evaluates windows (`llmzip.windows`) whole, in any order, on any thread; the decoder
(`llmzip.lanes`) steps through many chunks at once, one lane each. Both get the same integers from the engine, whatever
the batch.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.conditioner import NONE, Steering, Steerings
from llmzip.conditioning.conditioner_set import Choice
from llmzip.conditioning.conditioning import Conditioning, sample_of
from llmzip.entropy import TokenEncoder, bucket_size
from llmzip.errors import ConfigError
from llmzip.exact.backend import Backend, Cache, Floats, load_backend
from llmzip.exact.transformer import Segment, Transformer, in_blocks
from llmzip.format.limits import CANARY_SIZE
from llmzip.models.artefact import Artefact
from llmzip.tokens.tokenizer import ByteTokenizer
from llmzip.windows import Window, Windowing

Tokens = NDArray[np.int32]

# Rows whose logits are made together come in multiples of so many.
TILE_ROWS = 6
# Buckets, and members of one, share 2**24 among them. SPEC.md, section 9.
SHARE_BITS = 24
CANARY_TOKENS = 16
# Chunks that become tokens together, on all threads of the tokenizer; it takes thirty times their size in memory.
TOKENISED_TOGETHER = 16


class Work(NamedTuple):
    """A window of a chunk of tokens, and what steers it."""

    tokens: Tokens
    window: Window
    steering: Steering


# The frequencies of buckets and members for what a window codes, part by part.
Coded = list[tuple[Floats, Floats]]
Apply = Callable[[Callable[[Sequence[Work]], list[Coded]], Iterable[Sequence[Work]]], Iterator[list[Coded]]]


class Codec:
    """Codes chunks with one model; safe to use from several threads.

    Args:
        artefact: the model.
        windowing: how chunks are covered.
        backend: what computes; None for what the environment says, or the CPU.

    Attributes:
        sizes: how much of it goes together, as the backend likes it.
    """

    def __init__(self, artefact: Artefact, windowing: Windowing, backend: Backend | None = None) -> None:
        self.artefact = artefact
        self.windowing = self._checked(windowing)
        self.backend = backend or load_backend()
        self.sizes = self.backend.sizes
        self.transformer = Transformer(artefact.spec, artefact.parameters, self.backend)
        self.bucket_size = bucket_size(artefact.spec.vocab_size)
        self._caches = threading.local()
        self.conditioning = Conditioning()
        self.steerings = self._steerings()

    def with_windowing(self, windowing: Windowing) -> Codec:
        """The same model with other windows and without conditioners; it is not loaded again."""
        return self._changed(windowing, Conditioning())

    def with_conditioning(self, conditioning: Conditioning) -> Codec:
        """The same model and windows under conditioners.

        Raises:
            ConfigError: one of them leaves no room in the windows.
        """
        return self._changed(self.windowing, conditioning)

    def _changed(self, windowing: Windowing, conditioning: Conditioning) -> Codec:
        codec = copy.copy(self)
        codec.__dict__.pop("_canary", None)
        codec.windowing = self._checked(windowing)
        codec._caches = threading.local()
        codec.conditioning = conditioning
        codec.steerings = codec._steerings()
        return codec

    def _steerings(self) -> Steerings:
        """What each choice of a chunk comes to, none at all first."""
        spec = self.artefact.spec
        conditioners = [NONE, *self.conditioning.set.conditioners()]
        for conditioner in conditioners:
            self.windowing.beside(conditioner.n_positions)
        return Steerings(conditioners, spec.vocab_size, spec.width)

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
        cache = self.transformer.new_cache(1, self.windowing.window)
        weights, _ = self.predict(self.transformer.hidden(cache, [Segment(0, 0, tokens)]))
        digest = hashlib.sha256(np.asarray(weights, dtype="<i4").tobytes())
        for steering in self._all_steerings():
            cache.steer(0, steering.shifts)
            ids = np.concatenate([tokens[:1], steering.ids])
            weights, _ = self.predict(self.transformer.hidden(cache, [Segment(0, 0, ids)], self.steerings.table)[-1:])
            digest.update(np.asarray(weights, dtype="<i4").tobytes())
        return digest.digest()[:CANARY_SIZE]

    def encode(self, chunks: Iterable[Tokens], apply: Apply) -> Iterator[bytes]:
        """The payloads of chunks of tokens, in order; `apply` is `map`, or that of a pool of threads.

        Of a chunk that is coded under several conditioners, the smallest payload.
        """
        begun: deque[list[tuple[Tokens, Choice, list[Work]]]] = deque()

        def works() -> Iterator[Work]:
            for tokens in chunks:
                choices = self._choices(tokens)
                begun.append([(tokens, choice, self._works(tokens, choice)) for choice in choices])
                yield from itertools.chain.from_iterable(works for *_, works in begun[-1])

        results = itertools.chain.from_iterable(apply(self._code_windows, _batched(works(), self.sizes.windows)))
        for first in results:
            rest = itertools.chain([first], results)
            payloads = [
                self._encode_chunk(tokens, choice, itertools.islice(rest, len(works)))
                for tokens, choice, works in begun.popleft()
            ]
            yield min(payloads, key=len)

    def steering(self, choice: Choice) -> Steering:
        """What a choice of a chunk comes to; of one that brings vectors, as long as it has not brought them."""
        if self.conditioning.set.brings_vectors(choice):
            return self.steerings[0]
        if not choice.weights:
            return self.steerings[choice.number]
        basis = self.conditioning.set.basis
        assert basis is not None
        return self.shifted(basis.vectors.conditioner(np.array(choice.weights)).shifts)

    def shifted(self, shifts: Floats | None) -> Steering:
        """Shifts alone."""
        return Steering(self.steerings[0].ids, shifts)

    def _all_steerings(self) -> Iterator[Steering]:
        """Those of all choices but none; of a chunk's own weights or vectors, one."""
        yield from self.steerings.all[1:]
        found, spec = self.conditioning.set, self.artefact.spec
        if found.basis is not None and found.basis.own:
            yield self.steering(Choice(found.n_choices - 1, (1,) * found.basis.n_directions))
        if found.chunk_vectors is not None:
            yield self.shifted(np.ones((spec.n_layers + 1, spec.width), dtype=np.float32))

    def _choices(self, tokens: Tokens) -> Sequence[Choice]:
        """The choices under which a chunk is coded: of its candidates all, or the best on a part of its middle."""
        return [*self._shared_choices(tokens), *self.conditioning.own_vectors(tokens, self.windowing.window)]

    def _shared_choices(self, tokens: Tokens) -> Sequence[Choice]:
        choices = self.conditioning.candidates(tokens, self.artefact.parameters.matrices["embed"])
        if len(choices) == 1 or not self.conditioning.samples:
            return choices
        sample, n_context = sample_of(tokens, self.windowing.window // 2)
        bits = np.stack([self._bits(sample, choice)[n_context:] for choice in choices])
        return self.conditioning.narrowed(choices, bits, len(tokens))

    def _bits(self, tokens: Tokens, choice: Choice) -> NDArray[np.float64]:
        """What each token costs, as a window's beginning under a choice."""
        bits: list[NDArray[np.float64]] = []
        for work in self._works(tokens, choice):
            for (buckets, members), own in self._parts(work):
                rows = np.arange(len(own))
                shares = np.stack([buckets[rows, own // self.bucket_size], members[rows, own % self.bucket_size]])
                bits.append(2 * SHARE_BITS - np.log2(shares.astype(np.float64) + 1).sum(axis=0))
        return np.concatenate(bits)

    def _parts(self, work: Work) -> Iterator[tuple[tuple[Floats, Floats], Tokens]]:
        """The frequencies of a window, and the tokens that they are for."""
        coded = work.window.coded
        for part in self._code_windows([work])[0]:
            yield part, work.tokens[coded : coded + len(part[0])]
            coded += len(part[0])

    def _works(self, tokens: Tokens, choice: Choice) -> list[Work]:
        """The windows of a chunk under one of its choices."""
        steering = later = self.steering(choice)
        if choice.vectors is not None:
            later = self.shifted(choice.vectors.conditioner().shifts)
        windows = self.windowing.beside(len(steering.ids)).cover(len(tokens))
        return [Work(tokens, window, later if window.coded else steering) for window in windows]

    def _encode_chunk(self, tokens: Tokens, choice: Choice, windows: Iterable[Coded]) -> bytes:
        """The payload of a chunk, given its conditioner and the frequencies of all its tokens, window by window."""
        encoder, found = TokenEncoder(self.bucket_size), self.conditioning.set
        found.write_choice(encoder, choice)
        coded = 0
        for i, window in enumerate(windows):
            if i == 1:
                found.write_vectors(encoder, choice)
            for buckets, members in window:
                encoder.encode(tokens[coded : coded + len(buckets)], buckets, members)
                coded += len(buckets)
        return encoder.finish()

    def _code_windows(self, works: Sequence[Work]) -> list[Coded]:
        """For each of some windows, the frequencies of the buckets and members for its coded tokens."""
        cache = self._own_cache()
        segments = []
        for lane, (tokens, window, steering) in enumerate(works):
            cache.steer(lane, steering.shifts)
            inputs = np.concatenate([self.beginning(steering), tokens[window.start : window.stop - 1]])
            segments.append(Segment(lane, 0, inputs))
        coded: list[Coded] = [[] for _ in works]
        for block in in_blocks(segments, self.sizes.rows):
            hidden = self.transformer.hidden(cache, block, self.steerings.table)
            first = 0
            for segment in block:
                last = first + len(segment.tokens)
                coded[segment.lane] += self._frequencies(hidden[first:last], works[segment.lane], segment.position)
                first = last
        return coded

    def _frequencies(self, hidden: Floats, work: Work, position: int) -> Iterator[tuple[Floats, Floats]]:
        """Frequencies for the tokens that rows of a window from a position on predict; context predicts nothing."""
        tokens, window, steering = work
        n_before = len(steering.ids)
        n_context = n_before + window.coded - window.start
        target = window.start + max(position, n_context) - n_before
        for part in self.output_parts(hidden[max(0, n_context - position) :]):
            weights, buckets = self.predict(part)
            own = tokens[target : target + len(part)] // self.bucket_size
            target += len(part)
            yield buckets, self.backend.member_frequencies(weights, own.astype(np.int32), self.bucket_size)

    def beginning(self, steering: Steering) -> Tokens:
        """What every window begins with: BOS, and what a conditioner puts behind it."""
        return np.concatenate([np.array([self.artefact.spec.bos_id], dtype=np.int32), steering.ids])

    def output_parts(self, hidden: Floats) -> Iterator[Floats]:
        """Rows of `hidden` in parts whose logits lie in memory together."""
        n_rows = max(1, self.sizes.outputs // self.artefact.spec.vocab_size // TILE_ROWS) * TILE_ROWS
        for first in range(0, len(hidden), n_rows):
            yield hidden[first : first + n_rows]

    def predict(self, hidden: Floats) -> tuple[NDArray[np.int32], Floats]:
        """The engine's integer weights of all tokens, `[R, V]`, and the frequencies of their buckets, `[R, n]`."""
        return self.transformer.predict(hidden, self.bucket_size)

    def _own_cache(self) -> Cache:
        """Lanes for the windows that a thread evaluates together, made when they are first needed."""
        if not hasattr(self._caches, "cache"):
            self._caches.cache = self.transformer.new_cache(self.sizes.windows, self.windowing.window)
        cache: Cache = self._caches.cache
        return cache


def _batched(works: Iterable[Work], n: int) -> Iterator[Sequence[Work]]:
    left = iter(works)
    while batch := list(itertools.islice(left, n)):
        yield batch
