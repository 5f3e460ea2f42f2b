"""Conditioners as they are stored: what frames and files name. SPEC.md, section 4.1.

A set holds entries, each a fixed string or vectors, or a basis of directions and entries that are whole-numbered
combinations of them. A chunk chooses one entry or none, or brings a combination of its own, its memory, or vectors of
its own. How coordinates are coded is up to their hyperprior.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioner import Conditioner, Ids
from llmzip.conditioning.normal import normal_frequencies, sigma_of
from llmzip.conditioning.vectors import MAX_PREFIX, Shape, Vectors
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterEncoder, ParameterWriter
from llmzip.errors import FormatError
from llmzip.exact.spec import ModelSpec

MAX_ENTRIES = 255
MAX_DIRECTIONS = 64
MAX_COORDINATES = 1 << 22
MAX_RADIUS = 127
# Added to the number of entries where chunks may bring vectors.
_BRINGS_VECTORS = 256
# Of no conditioner and of any: where none pays, the choice is to cost next to nothing.
_ANY = np.array([15 << 20, 1 << 20], dtype=np.int64)

Whole = NDArray[np.int64]


class Choice(NamedTuple):
    """What a chunk has: none, an entry, or its own.

    Attributes:
        number: 0 for none, 1 to K for an entry, K + 1 for its own.
        weights: of the directions of the basis, for its own.
        vectors: its own; a decoder has them only behind the first window, so that it reads none with the number.
    """

    number: int = 0
    weights: tuple[int, ...] = ()
    vectors: Vectors | None = None


@dataclass(frozen=True)
class Text:
    """A fixed string: tokens that stand before every window as if they were its text, int32 `[n]`."""

    tokens: Ids

    def conditioner(self) -> Conditioner:
        """What the engine takes."""
        return Conditioner(text=self.tokens)


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions that conditioners are made of.

    Attributes:
        vectors: the coordinates of all directions.
        spreads: codes of the standard deviations of the weights in each direction, int64 `[d]`, 0 to 255.
        radius: weights are whole numbers from -radius to radius.
        entries: weights, int64 `[K, d]`.
        own: whether chunks may bring weights of their own; there is no prefix then.
    """

    vectors: Vectors
    spreads: Whole
    radius: int
    entries: Whole
    own: bool = False

    @property
    def n_directions(self) -> int:
        """How many directions there are."""
        return len(self.spreads)

    @functools.cached_property
    def frequencies(self) -> Whole:
        """Of the weights -radius .. radius in each direction, int64 `[d, 2 * radius + 1]`."""
        return np.stack([normal_frequencies(sigma_of(int(code)), 0, self.radius) for code in self.spreads])

    def write_weights(self, encoder: ParameterWriter, weights: Whole) -> None:
        """Write weights int64 `[d]`, each from -radius to radius."""
        encoder.choices_each((weights + self.radius).astype(np.int32), self.frequencies)

    def read_weights(self, decoder: ParameterDecoder) -> Whole:
        """The inverse of `write_weights`."""
        return decoder.choices_each(self.n_directions, self.frequencies).astype(np.int64) - self.radius


@dataclass(frozen=True)
class ConditionerSet:
    """What a chunk may choose from.

    Attributes:
        entries: each by itself; none where there is a basis.
        basis: or None.
        chunk_vectors: how chunks code vectors of their own, or None; there is no basis then.
    """

    entries: tuple[Text | Vectors, ...] = ()
    basis: Basis | None = None
    chunk_vectors: ChunkVectors | None = None

    @property
    def n_entries(self) -> int:
        """Conditioners that have a number."""
        return len(self.entries) if self.basis is None else len(self.basis.entries)

    @property
    def n_choices(self) -> int:
        """Choices of a chunk: none, each entry, and its own where that is allowed."""
        return 1 + self.n_entries + self.has_own

    @property
    def has_own(self) -> bool:
        """Whether the last choice is weights or vectors that the chunk brings."""
        return self.chunk_vectors is not None or (self.basis is not None and self.basis.own)

    def brings_vectors(self, choice: Choice) -> bool:
        """Whether a chunk of this choice has vectors of its own behind its first window."""
        return self.chunk_vectors is not None and choice.number > self.n_entries

    def write_choice(self, encoder: ParameterWriter, choice: Choice) -> None:
        """Write what a chunk has chosen. Source: SPEC.md, section 9.4."""
        if self.n_choices > 1:
            encoder.choices(np.array([choice.number > 0], dtype=np.int32), _ANY)
        if choice.number:
            encoder.uniform(choice.number - 1, self.n_choices - 1)
        if choice.weights:
            assert self.basis is not None
            self.basis.write_weights(encoder, np.array(choice.weights))

    def write_vectors(self, encoder: ParameterWriter, choice: Choice) -> None:
        """Write the vectors that a chunk brings, if it does; they stand behind its first window."""
        if choice.vectors is not None and self.chunk_vectors is not None:
            self.chunk_vectors.write_rows(encoder, choice.vectors)

    def choice_bits(self, choice: Choice) -> float:
        """What a choice costs."""
        counter = BitCounter()
        self.write_choice(counter, choice)
        return counter.bits

    def read_choice(self, decoder: ParameterDecoder) -> Choice:
        """The inverse of `write_choice`."""
        conditioned = self.n_choices > 1 and bool(decoder.choices(1, _ANY)[0])
        number = 1 + decoder.uniform(self.n_choices - 1) if conditioned else 0
        if self.basis is None or number <= self.n_entries:
            return Choice(number)
        return Choice(number, tuple(self.basis.read_weights(decoder).tolist()))

    def conditioners(self) -> list[Conditioner]:
        """The entries as the engine takes them."""
        if self.basis is None:
            return [entry.conditioner() for entry in self.entries]
        return [self.basis.vectors.conditioner(weights) for weights in self.basis.entries]

    def pack(self, spec: ModelSpec) -> bytes:
        """The body of a conditioner section, or of a conditioner file."""
        encoder = ParameterEncoder()
        encoder.uniform(int(self.basis is not None), 2)
        encoder.gamma(self.n_entries + _BRINGS_VECTORS * (self.chunk_vectors is not None))
        if self.chunk_vectors is not None:
            self.chunk_vectors.write(encoder)
        for entry in self.entries:
            _write_entry(encoder, entry, spec)
        if self.basis is not None:
            _write_basis(encoder, self.basis)
        return encoder.finish()

    @classmethod
    def unpack(cls, body: bytes, spec: ModelSpec) -> ConditionerSet:
        """The inverse of `pack`.

        Raises:
            FormatError: no writer makes such a body for this model.
        """
        decoder = ParameterDecoder(body)
        with_basis = decoder.uniform(2)
        brings_vectors, n_entries = divmod(decoder.gamma(), _BRINGS_VECTORS)
        if brings_vectors > 1 - with_basis:
            raise _wrong(f"at most {MAX_ENTRIES} entries", _BRINGS_VECTORS * brings_vectors + n_entries)
        if with_basis:
            found = cls(basis=_read_basis(decoder, n_entries, spec))
        else:
            chunk_vectors = ChunkVectors.read(decoder, spec) if brings_vectors else None
            found = cls(_read_entries(decoder, n_entries, spec), chunk_vectors=chunk_vectors)
        if found.n_choices == 1:
            raise _wrong("a conditioner", "none")
        if found.pack(spec) != body:
            raise _wrong("nothing behind the last conditioner", "other bytes")
        return found


def conditioner_id(artefact_id: str, body: bytes) -> bytes:
    """SHA-256, 32 bytes, of a model's id and the body of a set: its name."""
    return hashlib.sha256(bytes.fromhex(artefact_id) + body).digest()


def _write_entry(encoder: ParameterEncoder, entry: Text | Vectors, spec: ModelSpec) -> None:
    encoder.uniform(int(isinstance(entry, Vectors)), 2)
    if isinstance(entry, Vectors):
        entry.shape.write(encoder)
        entry.write(encoder)
        return
    encoder.gamma(len(entry.tokens))
    for token in entry.tokens.tolist():
        encoder.uniform(token, spec.vocab_size)


def _read_entries(decoder: ParameterDecoder, n_entries: int, spec: ModelSpec) -> tuple[Text | Vectors, ...]:
    entries: list[Text | Vectors] = []
    n_coordinates = 0
    for _ in range(n_entries):
        if decoder.uniform(2):
            shape = Shape.read(decoder, spec)
            n_coordinates += shape.n_coordinates
            _check_size(n_coordinates)
            entries.append(Vectors.read(decoder, shape))
        else:
            entries.append(_read_text(decoder, spec))
    return tuple(entries)


def _read_text(decoder: ParameterDecoder, spec: ModelSpec) -> Text:
    n_tokens = decoder.gamma()
    if n_tokens > MAX_PREFIX:
        raise _wrong(f"a string of at most {MAX_PREFIX} tokens", n_tokens)
    return Text(np.array([decoder.uniform(spec.vocab_size) for _ in range(n_tokens)], dtype=np.int32))


def _write_basis(encoder: ParameterEncoder, basis: Basis) -> None:
    encoder.gamma(basis.n_directions - 1)
    basis.vectors.shape.write(encoder)
    basis.vectors.write(encoder)
    encoder.gamma(basis.radius)
    for code in basis.spreads.tolist():
        encoder.uniform(code, 256)
    for weights in basis.entries:
        basis.write_weights(encoder, weights)
    if not basis.vectors.shape.n_prefix:
        encoder.uniform(int(basis.own), 2)


def _read_basis(decoder: ParameterDecoder, n_entries: int, spec: ModelSpec) -> Basis:
    n_directions = decoder.gamma() + 1
    if n_directions > MAX_DIRECTIONS:
        raise _wrong(f"at most {MAX_DIRECTIONS} directions", n_directions)
    shape = Shape.read(decoder, spec)
    _check_size(n_directions * shape.n_coordinates)
    vectors = Vectors.read(decoder, shape, n_directions)
    radius = decoder.gamma()
    if not 1 <= radius <= MAX_RADIUS:
        raise _wrong(f"weights of 1 to {MAX_RADIUS}", radius)
    spreads = np.array([decoder.uniform(256) for _ in range(n_directions)], dtype=np.int64)
    basis = Basis(vectors, spreads, radius, np.zeros((0, n_directions), np.int64))
    entries = np.array([basis.read_weights(decoder) for _ in range(n_entries)], dtype=np.int64)
    own = not shape.n_prefix and bool(decoder.uniform(2))
    return replace(basis, entries=entries.reshape(-1, n_directions), own=own)


def _check_size(n_coordinates: int) -> None:
    if n_coordinates > MAX_COORDINATES:
        raise _wrong(f"at most {MAX_COORDINATES} coordinates", n_coordinates)


def _wrong(expected: str, found: object) -> FormatError:
    return FormatError(f"expected {expected}, found {found}", field="conditioner", have=found)
