"""Rows of a conditioner as quantised coordinates, group by group: the prefix, then each shift by itself.

Groups differ in scale, since a layer's input grows with its depth, so each has a step and a hyperprior of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import llmzip.conditioning.learned  # noqa: F401 (registers its kind)
from llmzip.conditioning.conditioner import Conditioner, Floats
from llmzip.conditioning.hyperpriors import Coordinates
from llmzip.conditioning.normal import step_of
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import FormatError
from llmzip.exact.spec import ModelSpec

MAX_PREFIX = 256


class Shape(NamedTuple):
    """Of a conditioner for some model.

    Attributes:
        n_prefix: rows of the prefix.
        n_shifts: 0, or one more than the model's layers.
        width: D.
    """

    n_prefix: int
    n_shifts: int
    width: int

    @property
    def groups(self) -> list[int]:
        """Rows of each group of coordinates."""
        return [self.n_prefix] * (self.n_prefix > 0) + [1] * self.n_shifts

    @property
    def n_coordinates(self) -> int:
        """Of all groups."""
        return (self.n_prefix + self.n_shifts) * self.width

    def write(self, encoder: ParameterEncoder) -> None:
        """Write what `read` reads."""
        encoder.gamma(self.n_prefix)
        encoder.uniform(int(self.n_shifts > 0), 2)

    @classmethod
    def read(cls, decoder: ParameterDecoder, spec: ModelSpec) -> Shape:
        """Read the shape of a conditioner for a model.

        Raises:
            FormatError: a prefix above 256 rows.
        """
        n_prefix = decoder.gamma()
        if n_prefix > MAX_PREFIX:
            raise FormatError(f"prefix: expected at most {MAX_PREFIX} rows, found {n_prefix}", field="conditioner")
        return cls(n_prefix, (spec.n_layers + 1) * decoder.uniform(2), spec.width)


@dataclass(frozen=True)
class Vectors:
    """Coordinates of one conditioner, or of all directions of a basis.

    Attributes:
        shape: of one of them.
        groups: coordinates `[n * rows * D]` of each group of rows, those of the `n` directions one after the other.
    """

    shape: Shape
    groups: tuple[Coordinates, ...]

    def write(self, encoder: ParameterEncoder) -> None:
        """Write the groups; the shape is written apart."""
        for group in self.groups:
            group.write(encoder)

    @classmethod
    def read(cls, decoder: ParameterDecoder, shape: Shape, n: int = 1) -> Vectors:
        """Read the groups of `n` conditioners of a shape."""
        return cls(shape, tuple(Coordinates.read(decoder, n * rows * shape.width) for rows in shape.groups))

    def conditioner(self, weights: NDArray[np.int64] | None = None) -> Conditioner:
        """What the engine takes.

        Each number is the sum of integers times weights, rounded to float32 once, times the step of its group, rounded
        once more. Source: SPEC.md, section 4.1.

        Args:
            weights: int64 `[n]`, of the directions of a basis; None for a conditioner by itself.
        """
        if weights is None:
            weights = np.ones(1, dtype=np.int64)
        rows = [_combined(group, weights).reshape(-1, self.shape.width) for group in self.groups]
        prefix = rows.pop(0) if self.shape.n_prefix else None
        return Conditioner(prefix=prefix, shifts=np.concatenate(rows) if rows else None)


def _combined(group: Coordinates, weights: NDArray[np.int64]) -> Floats:
    directions = group.integers().astype(np.int64).reshape(len(weights), -1)
    y: Floats = (weights @ directions).astype(np.float32) * np.float32(step_of(group.step_code))
    return y
