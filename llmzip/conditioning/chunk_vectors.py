"""A chunk's own vectors: shifts that a chunk brings once the tokens of its first window are there. SPEC.md, 9.4.

They come behind the first window, so that the distribution of their coordinates may be predicted from its text. A set
says whether chunks may bring any, and names at most one network of a learned hyperprior for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.conditioner import Ids
from llmzip.conditioning.hyperpriors import Coordinates, Kind, quantise
from llmzip.conditioning.learned import Learned, quantise_learned, read_network_id, write_network_id
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.normal import step_of
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterWriter
from llmzip.errors import FormatError
from llmzip.exact.spec import ModelSpec

Floats = NDArray[np.float32]
# Those that need no network and are compared; the third is for fewer levels than a step gives.
_KINDS: tuple[Kind, ...] = ("gaussian", "empirical")


@dataclass(frozen=True)
class ChunkVectors:
    """How the rows that chunks bring are coded.

    Attributes:
        shape: of one chunk's vectors: shifts and no prefix.
        network: of a learned hyperprior, or None.
    """

    shape: Shape
    network: HyperpriorNetwork | None = None

    @classmethod
    def of(cls, spec: ModelSpec, network: HyperpriorNetwork | None = None) -> Self:
        """Those of chunks of a model.

        Raises:
            FormatError: the network is for other rows, or for other tokens.
        """
        shape = Shape(0, spec.n_layers + 1, spec.width)
        if network is not None:
            expected = shape.n_shifts, shape.width, spec.vocab_size
            found = network.n_parts, network.width, len(network.text_weights) or spec.vocab_size
            if found != expected:
                raise FormatError(f"network: expected one for rows, width and tokens {expected}, found {found}")
        return cls(shape, network)

    def write(self, writer: ParameterWriter) -> None:
        """Write which network there is."""
        writer.uniform(int(self.network is not None), 2)
        if self.network is not None:
            write_network_id(writer, self.network)

    @classmethod
    def read(cls, decoder: ParameterDecoder, spec: ModelSpec) -> Self:
        """The inverse of `write`.

        Raises:
            ConditionerMissingError: the network is not on this machine.
            FormatError: it is for another model.
        """
        return cls.of(spec, read_network_id(decoder) if decoder.uniform(2) else None)

    def write_rows(self, writer: ParameterWriter, vectors: Vectors) -> None:
        """Write the rows of a chunk, as `fit` gave them."""
        for group in vectors.groups:
            hyperprior = group.hyperprior
            if self.network is not None:
                writer.uniform(int(isinstance(hyperprior, Learned)), 2)
            if isinstance(hyperprior, Learned):
                hyperprior.write_row(writer)
                hyperprior.write_symbols(writer, group.symbols)
            else:
                group.write(writer)

    def read_rows(self, decoder: ParameterDecoder, text: Ids) -> Vectors:
        """The inverse of `write_rows`, for a chunk whose first window has the tokens `text`."""
        network = self._given(text)
        return Vectors(self.shape, tuple(self._read_row(decoder, network, i) for i in range(self.shape.n_shifts)))

    def fit(self, rows: Floats, steps: list[float], text: Ids) -> Vectors:
        """The cheapest coding of rows.

        Args:
            rows: float32 `[L + 1, D]`.
            steps: to which each is rounded; with a network those that it was trained with are taken.
            text: tokens of the chunk's first window.
        """
        network = self._given(text)
        if network is not None:
            steps = [float(step_of(int(code))) for code in network.step_codes]
        return Vectors(self.shape, tuple(_cheapest(row, i, steps[i], network) for i, row in enumerate(rows)))

    def bits(self, vectors: Vectors) -> float:
        """What a chunk's vectors cost."""
        counter = BitCounter()
        self.write_rows(counter, vectors)
        return counter.bits

    def _read_row(self, decoder: ParameterDecoder, network: HyperpriorNetwork | None, part: int) -> Coordinates:
        if network is None or not decoder.uniform(2):
            # A network of its own would be looked for wherever a chunk is damaged.
            return Coordinates.read(decoder, self.shape.width, shared=True)
        hyperprior = Learned.read_row(decoder, network, part)
        symbols = hyperprior.read_symbols(decoder, self.shape.width)
        return Coordinates(hyperprior, symbols, int(network.step_codes[part]))

    def _given(self, text: Ids) -> HyperpriorNetwork | None:
        return None if self.network is None else self.network.given(text)


def _cheapest(row: Floats, part: int, step: float, network: HyperpriorNetwork | None) -> Coordinates:
    """A row under the hyperprior that takes the fewest bits, each to the same step."""
    candidates = [quantise(row, kind, step=step) for kind in _KINDS]
    costs = [one.cost().total_bits for one in candidates]
    if network is not None:
        learned = quantise_learned(row, part, network)
        candidates.append(learned)
        costs.append(_row_bits(learned))
    return candidates[int(np.argmin(costs))]


def _row_bits(learned: Coordinates) -> float:
    """What a row costs under the network that is known."""
    counter = BitCounter()
    assert isinstance(learned.hyperprior, Learned)
    learned.hyperprior.write_row(counter)
    learned.hyperprior.write_symbols(counter, learned.symbols)
    return counter.bits
