"""Which conditioners an archive's chunks may have, how the archive names them, and how an encoder chooses."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.chooser import Chooser, mean_embedding
from llmzip.conditioning.conditioner_set import Choice, ConditionerSet
from llmzip.errors import FormatError
from llmzip.exact.matrix import QuantisedMatrix

# Bits of a chunk that an estimate must promise to be tried, and how many choices are tried beside none.
MARGIN_BITS = 8.0
MOST_TRIED = 2
# By how many standard errors the gain on a sample must be above 0 to be looked into, and to be taken for certain.
PROMISING_ERRORS, CERTAIN_ERRORS = 1.0, 3.0
# Of a chunk, to compare its candidates on: by estimates alone, texts that the chooser misjudges become larger. The
# first half is context only, for what a window's beginning gains says little of the rest.
SAMPLE_TOKENS = 512
NAME_SIZE = 8
_EMBEDDED, _NAMED = 0, 1


class Place(enum.Enum):
    """Where a frame's conditioners are."""

    NOWHERE = "nowhere"
    CODEBOOK = "codebook"
    NAMED = "named"
    EMBEDDED = "embedded"


class Policy(enum.StrEnum):
    """How an encoder chooses, where it is not told the number of an entry."""

    AUTO = "auto"
    BEST = "best"
    NONE = "none"


class ChunkRows(NamedTuple):
    """What was trained for a chunk.

    Attributes:
        rows: float32 `[L + 1, D]`.
        steps: to which each row is to be rounded.
    """

    rows: NDArray[np.float32]
    steps: list[float]


# Makes vectors for a chunk of tokens; None where it has none.
ChunkTrainer = Callable[[NDArray[np.int32]], ChunkRows | None]


@dataclass(frozen=True)
class Conditioning:
    """Conditioners for one model, and what to do with them.

    Attributes:
        set: of which a chunk has one or none.
        body: the set, packed.
        id: 32 bytes that name model and set.
        place: where a decoder finds the set.
        chooser: estimates what entries gain, or None.
        policy: a `Policy`, or the number of an entry, counted from 1, that all chunks get.
        trainer: makes vectors that chunks bring, or None.
    """

    set: ConditionerSet = ConditionerSet()  # noqa: RUF009 (frozen, and of frozen parts)
    body: bytes = b""
    id: bytes = b""
    place: Place = Place.NOWHERE
    chooser: Chooser | None = None
    policy: Policy | int = Policy.AUTO
    trainer: ChunkTrainer | None = None

    def own_vectors(self, tokens: NDArray[np.int32], window: int) -> Sequence[Choice]:
        """The vectors that a chunk may bring, rounded, if there are any and a second window for them.

        Args:
            tokens: of the chunk.
            window: tokens of the first window.
        """
        chunk_vectors = self.set.chunk_vectors
        if self.trainer is None or chunk_vectors is None or len(tokens) <= window:
            return []
        trained = self.trainer(tokens)
        if trained is None:
            return []
        vectors = chunk_vectors.fit(trained.rows, trained.steps, tokens[:window])
        return [Choice(self.set.n_choices - 1, vectors=vectors)]

    def candidates(self, tokens: NDArray[np.int32], embedding: QuantisedMatrix) -> Sequence[Choice]:
        """The choices that are to be tried for a chunk, none first where there are several; the best is taken.

        Args:
            tokens: of the chunk.
            embedding: of the model.
        """
        n_entries = self.set.n_entries
        if isinstance(self.policy, int):
            return [Choice(self.policy)]
        if self.policy is Policy.NONE or self.set.n_choices == 1 or len(tokens) == 0:
            return [Choice()]
        entries = [Choice(number) for number in range(1 + n_entries)]
        if self.chooser is None:
            return entries
        mean = mean_embedding(tokens, embedding)
        own = self._own(self.chooser, mean)
        if self.policy is Policy.BEST:
            return entries + own
        bits = self.chooser.estimate(mean) * len(tokens)
        numbers = 1 + np.argsort(-bits, kind="stable")[:MOST_TRIED]
        promising = [int(number) for number in numbers if bits[number - 1] > MARGIN_BITS]
        tried = [choice for number in promising for choice in ([Choice(number)] if number <= n_entries else own)]
        return [Choice(), *(choice for choice in tried if choice.number)]

    @property
    def samples(self) -> bool:
        """Whether candidates are compared on a part of the chunk; else on all of it."""
        return self.policy is Policy.AUTO and self.chooser is not None

    def narrowed(self, choices: Sequence[Choice], bits: NDArray[np.float64], n_tokens: int) -> Sequence[Choice]:
        """Those that are left after a look at a sample of a chunk.

        Args:
            choices: none first.
            bits: what each of the sample's tokens costs under each choice, `[len(choices), n]`.
            n_tokens: of the chunk.

        Returns:
            None alone where nothing promises a gain; what gains most alone where its gain is certain; else both, of
            which the smaller payload is to be taken.
        """
        costs = np.array([self.set.choice_bits(choice) for choice in choices])
        gains = n_tokens * (bits[0] - bits).mean(axis=1) + costs[0] - costs
        best = int(np.argmax(gains))
        differences = bits[0] - bits[best]
        error = n_tokens * differences.std() / np.sqrt(len(differences))
        if best == 0 or gains[best] < PROMISING_ERRORS * error:
            return choices[:1]
        return [choices[best]] if gains[best] > CERTAIN_ERRORS * error else [choices[0], choices[best]]

    def _own(self, chooser: Chooser, mean: NDArray[np.float64]) -> list[Choice]:
        """What a chunk brings itself, if it may and that is anything."""
        basis = self.set.basis
        if basis is None or not basis.own:
            return []
        weights = chooser.weights(mean, basis.radius)
        return [Choice(self.set.n_choices - 1, weights)] if any(weights) else [Choice()]

    @functools.cached_property
    def section(self) -> bytes:
        """The body of a frame's conditioner section; empty where the frame has none."""
        if self.place is Place.EMBEDDED:
            return bytes([_EMBEDDED]) + self.body
        return bytes([_NAMED]) + self.id[:NAME_SIZE] if self.place is Place.NAMED else b""


def sample_of(tokens: NDArray[np.int32], most: int) -> tuple[NDArray[np.int32], int]:
    """Tokens from a chunk's middle, `most` at most, and how many of them are only context for the others."""
    n_sample = min(SAMPLE_TOKENS, len(tokens), most)
    start = (len(tokens) - n_sample) // 2
    return tokens[start : start + n_sample], n_sample // 2 if n_sample < len(tokens) else 0


def embedded_body(section: bytes) -> bytes:
    """The set that a conditioner section holds, packed."""
    return section[1:]


def name_in(section: bytes) -> bytes | None:
    """The beginning of the id that a conditioner section holds; None where it holds the set itself.

    Raises:
        FormatError: it is no such section.
    """
    if section[:1] == bytes([_EMBEDDED]):
        return None
    if section[:1] != bytes([_NAMED]) or len(section) != 1 + NAME_SIZE:
        message = (
            f"expected a set, or the {NAME_SIZE} bytes of a name, found {section[:1].hex()} and {len(section)} bytes"
        )
        raise FormatError(message, field="conditioner")
    return section[1:]
