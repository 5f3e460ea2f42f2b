"""Groups of numbers coded under a hyperprior and read back: the figures of one rate and one error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.hyperpriors import Coordinates, Kind, quantise
from llmzip.conditioning.normal import step_of
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import ExactnessError

Floats = NDArray[np.float32]

KINDS: tuple[Kind, ...] = ("gaussian", "empirical", "lloyd-max")


class Quantised(NamedTuple):
    """Figures of coordinates.

    Attributes:
        kind: the hyperprior.
        n: coordinates in all groups.
        step: of the one group; 0 where there are several.
        mse: mean squared error.
        entropy: bits a coordinate, by how often the levels of its group occur.
        metadata_bits: of hyperpriors and steps, by their frequencies.
        coordinate_bits: of the levels, by their frequencies.
        coded_bits: of the stream of all groups, which was read back.
    """

    kind: Kind
    n: int
    step: float
    mse: float
    entropy: float
    metadata_bits: float
    coordinate_bits: float
    coded_bits: int

    @property
    def rate(self) -> float:
        """Coded bits a coordinate."""
        return self.coded_bits / self.n

    @property
    def ratio(self) -> float:
        """Coded bits for each bit of float32."""
        return self.rate / 32


def quantised(
    groups: Sequence[Floats], kind: Kind, n_levels: int | None = None, step: float | None = None
) -> Quantised:
    """Quantise groups each by itself, code them in one stream, read it back and compare.

    Args:
        groups: float32 `[N]` each.
        kind: the hyperprior.
        n_levels: at most, of each group.
        step: of each group.

    Raises:
        ExactnessError: other coordinates came back.
        ConfigError: numbers that do not fit levels and step.
    """
    found = [quantise(group, kind, n_levels, step) for group in groups]
    payload = _coded(found)
    n = sum(map(len, groups))
    costs = [one.cost() for one in found]
    errors = [_squared_error(one, group) for one, group in zip(found, groups, strict=True)]
    return Quantised(
        kind,
        n,
        float(step_of(found[0].step_code)) if len(found) == 1 else 0.0,
        sum(errors) / n,
        sum(_entropy(one) for one in found) / n,
        sum(cost.metadata_bits for cost in costs),
        sum(cost.coordinate_bits for cost in costs),
        8 * len(payload),
    )


def _coded(groups: Sequence[Coordinates]) -> bytes:
    encoder = ParameterEncoder()
    for one in groups:
        one.write(encoder)
    payload = encoder.finish()
    decoder = ParameterDecoder(payload)
    for one in groups:
        expect_same(Coordinates.read(decoder, len(one.symbols)), one)
    return payload


def expect_same(read: Coordinates, written: Coordinates) -> None:
    """Hold what was read against what was written: the levels, the distribution, and every coordinate's place.

    Raises:
        ExactnessError: something differs.
    """
    same = read.hyperprior == written.hyperprior and read.step_code == written.step_code
    if not same or not np.array_equal(read.symbols, written.symbols):
        n = len(written.symbols)
        raise ExactnessError(f"{written.hyperprior.name}: expected the levels of {n} coordinates back, found others")


def _squared_error(found: Coordinates, group: Floats) -> float:
    errors = group.astype(np.float64) - found.values()
    return float(errors @ errors)


def _entropy(found: Coordinates) -> float:
    """Bits of all coordinates, by how often each level occurs."""
    counts = np.bincount(found.symbols)
    counts = counts[counts > 0]
    return float(counts @ (np.log2(len(found.symbols)) - np.log2(counts)))
