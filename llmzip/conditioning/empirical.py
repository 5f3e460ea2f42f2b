"""The empirical hyperprior: evenly spaced levels from the least value to the greatest, under their histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from llmzip.conditioning.histogram import Histogram
from llmzip.conditioning.normal import MAX_LEVELS, N_STEPS, step_of
from llmzip.conditioning.registry import (
    MAX_INTEGER,
    Doubles,
    Integers,
    SharedHyperprior,
    Symbols,
    check_level,
    read_number,
    register,
)
from llmzip.entropy import ParameterDecoder, ParameterWriter
from llmzip.errors import ConfigError


@register
@dataclass(frozen=True)
class Empirical(SharedHyperprior):
    """Consecutive numbers, as many as the histogram has.

    Args:
        first: the least number.
        histogram: how often each occurs.
    """

    kind: ClassVar[int] = 1
    name: ClassVar[str] = "empirical"
    first: int
    histogram: Histogram

    @property
    def levels(self) -> Integers:
        """The numbers from the first on."""
        return self.first + np.arange(len(self.histogram.differences), dtype=np.int64)

    def frequencies(self) -> Integers:
        """How probable each level is, int64 `[n_levels]`."""
        return self.histogram.frequencies()

    def write(self, writer: ParameterWriter) -> None:
        """Write the first number, how many there are, and the histogram."""
        writer.signed(self.first)
        writer.gamma(len(self.histogram.differences) - 1)
        self.histogram.write(writer)

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:  # noqa: ARG003 - other classes need it
        """Read what `write` wrote."""
        first = check_level(decoder.signed())
        n_levels = read_number(decoder, "levels less one", MAX_LEVELS - 1) + 1
        check_level(first + n_levels - 1)
        return cls(first, Histogram.read(decoder, n_levels))

    @classmethod
    def quantise(cls, values: Doubles, n_levels: int | None, step_code: int | None) -> tuple[Self, Symbols, int]:
        """Round to the nearest level; nothing is clipped. Without a step, by the least that the levels allow."""
        if len(values) == 0:
            return cls(0, Histogram.fit(np.zeros(1, dtype=np.int64))), np.zeros(0, dtype=np.int32), step_code or 0
        limit = MAX_LEVELS if n_levels is None else n_levels
        codes = range(N_STEPS) if step_code is None else [step_code]
        fitting = [code for code in codes if _fits(values.min(), values.max(), code, limit)]
        if not fitting:
            raise ConfigError(
                f"empirical: expected values that fit {limit} levels of a step of at most {step_of(codes[-1])}, "
                f"found {values.min():g} to {values.max():g}"
            )
        numbers = np.rint(values / step_of(fitting[0])).astype(np.int64)
        first = int(numbers.min())
        histogram = Histogram.fit(np.bincount(numbers - first))
        return cls(first, histogram), (numbers - first).astype(np.int32), fitting[0]


def _fits(least: float, greatest: float, step_code: int, n_levels: int) -> bool:
    step = float(step_of(step_code))
    first, last = np.rint(least / step), np.rint(greatest / step)
    return bool(last - first < n_levels and max(-first, last) <= MAX_INTEGER)
