"""The Gaussian hyperprior: all whole numbers up to a radius, under a normal distribution around 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.normal import (
    MAX_RADIUS,
    N_STEPS,
    nearest_sigma_code,
    normal_frequencies,
    sigma_of,
    step_of,
)
from llmzip.conditioning.registry import Doubles, Integers, SharedHyperprior, Symbols, read_number, register
from llmzip.entropy import ParameterDecoder, ParameterWriter
from llmzip.errors import ConfigError
from llmzip.exact.reference import FREQUENCY_BITS

# Codes in an octave of steps.
_OCTAVE = 8


@register
@dataclass(frozen=True)
class Gaussian(SharedHyperprior):
    """The numbers -radius to radius under a normal distribution.

    Args:
        radius: 0 to 2047. With 0 there is one level, and a coordinate costs nothing.
        sigma_code: of the standard deviation, 0 to 255; 0 if the radius is 0.
    """

    kind: ClassVar[int] = 0
    name: ClassVar[str] = "gaussian"
    radius: int
    sigma_code: int

    @property
    def levels(self) -> Integers:
        """-radius to radius."""
        return np.arange(-self.radius, self.radius + 1, dtype=np.int64)

    def frequencies(self) -> Integers:
        """How probable each level is, int64 `[2 * radius + 1]`."""
        return normal_frequencies(sigma_of(self.sigma_code), 0, self.radius)

    def write(self, writer: ParameterWriter) -> None:
        """Write the radius and, if it is not 0, the standard deviation."""
        writer.gamma(self.radius)
        if self.radius:
            writer.uniform(self.sigma_code, 256)

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:  # noqa: ARG003 - other classes need it
        """Read what `write` wrote."""
        radius = read_number(decoder, "radius", MAX_RADIUS)
        return cls(radius, decoder.uniform(256) if radius else 0)

    @classmethod
    def fit(cls, numbers: Integers) -> Self:
        """The cheapest for given numbers, int64 `[N]`, each -2047 to 2047."""
        radius = int(np.abs(numbers).max(initial=0))
        if radius == 0:
            return cls(0, 0)
        counts = np.bincount(numbers + radius, minlength=2 * radius + 1)
        deviation = float(np.sqrt(np.mean(numbers.astype(np.float64) ** 2)))
        code = descend(lambda code: bits_under(counts, cls(radius, code).frequencies()), nearest_sigma_code(deviation))
        return cls(radius, code)

    @classmethod
    def quantise(cls, values: Doubles, n_levels: int | None, step_code: int | None) -> tuple[Self, Symbols, int]:
        """Round to the nearest level; without a step, by the one of least mean squared error.

        An even `n_levels` gives one level less.
        """
        limit = MAX_RADIUS if n_levels is None else min((n_levels - 1) // 2, MAX_RADIUS)
        if step_code is None:
            step_code = _best_step(values, limit)
            numbers = _clipped(values, step_code, limit)
        else:
            numbers = np.rint(values / step_of(step_code))
            greatest = np.abs(numbers).max(initial=0)
            if greatest > limit:
                raise ConfigError(
                    f"gaussian: expected at most {limit} steps from 0, found {greatest:.0f}; raise the step"
                )
        whole = numbers.astype(np.int64)
        hyperprior = cls.fit(whole)
        return hyperprior, (whole + hyperprior.radius).astype(np.int32), step_code


def bits_under(counts: Integers, frequencies: Integers) -> float:
    """Bits of symbols that occur so often, int64 `[n]`, under frequencies of the sum 2**24, `[n]`."""
    return float(counts @ (FREQUENCY_BITS - np.log2(frequencies)))


def descend(cost: Callable[[int], float], code: int) -> int:
    """Walk from a code, 0 to 255, to one that costs less than both its neighbours."""
    best = cost(code)
    for direction in (-1, 1):
        while 0 <= code + direction <= 255 and (found := cost(code + direction)) < best:
            code, best = code + direction, found
    return code


def _best_step(values: Doubles, limit: int) -> int:
    """The code of least squared error after clipping, sought from the first that clips nothing down."""
    greatest = float(np.abs(values).max(initial=0))
    holding = [code for code in range(N_STEPS) if np.rint(greatest / float(step_of(code))) <= limit]
    best = code = holding[0] if holding else N_STEPS - 1
    least = _squared_error(values, code, limit)
    while code > max(0, best - _OCTAVE):
        code -= 1
        error = _squared_error(values, code, limit)
        if error < least:
            best, least = code, error
    return best


def _squared_error(values: Doubles, step_code: int, limit: int) -> float:
    errors = values - _clipped(values, step_code, limit) * step_of(step_code)
    return float(errors @ errors)


def _clipped(values: Doubles, step_code: int, limit: int) -> NDArray[np.float64]:
    return np.clip(np.rint(values / step_of(step_code)), -limit, limit)
