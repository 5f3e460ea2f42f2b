"""The Lloyd-Max hyperprior: levels where they make the squared error least, under their histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from llmzip.conditioning.histogram import Histogram
from llmzip.conditioning.normal import MAX_LEVELS, N_STEPS, nearest_code, step_of
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
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterWriter
from llmzip.errors import ConfigError

N_ORDERS = 16

# Grid points for a level, of the range that is divided evenly: rounding to it adds about 1 % to the error of a normal.
_GRID = 32
_MAX_ITERATIONS = 1000
# Iterations end when one takes less than this part of the error away.
_ENOUGH = 1e-5
# Quantiles a level that iterations start from.
_PARTS = 4


@register
@dataclass(frozen=True)
class LloydMax(SharedHyperprior):
    """Any ascending numbers.

    Args:
        numbers: strictly ascending, 1 to 4096 of them, each at most 2**24 in magnitude.
        order: lowest bits of a difference that are coded uniformly, 0 to 15.
        histogram: how often each occurs.
    """

    kind: ClassVar[int] = 2
    name: ClassVar[str] = "lloyd-max"
    numbers: tuple[int, ...]
    order: int
    histogram: Histogram

    @property
    def levels(self) -> Integers:
        """The numbers."""
        return np.array(self.numbers, dtype=np.int64)

    def frequencies(self) -> Integers:
        """How probable each level is, int64 `[n_levels]`."""
        return self.histogram.frequencies()

    def write(self, writer: ParameterWriter) -> None:
        """Write how many numbers there are, the first, the differences, and the histogram."""
        writer.gamma(len(self.numbers) - 1)
        writer.signed(self.numbers[0])
        if len(self.numbers) > 1:
            writer.uniform(self.order, N_ORDERS)
            _write_differences(writer, np.diff(self.levels) - 1, self.order)
        self.histogram.write(writer)

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:  # noqa: ARG003 - other classes need it
        """Read what `write` wrote."""
        n_levels = read_number(decoder, "levels less one", MAX_LEVELS - 1) + 1
        numbers = [check_level(decoder.signed())]
        order = decoder.uniform(N_ORDERS) if n_levels > 1 else 0
        for _ in range(n_levels - 1):
            numbers.append(check_level(numbers[-1] + 1 + decoder.golomb(order)))
        return cls(tuple(numbers), order, Histogram.read(decoder, n_levels))

    @classmethod
    def quantise(cls, values: Doubles, n_levels: int | None, step_code: int | None) -> tuple[Self, Symbols, int]:
        """Fit at most `n_levels` levels; without a step, they lie on a grid 32 times finer than even levels would."""
        if n_levels is None:
            raise ConfigError("lloyd-max: expected a number of levels, found none")
        ordered = np.sort(values) if len(values) else np.zeros(1)
        if step_code is None:
            step_code = _grid(ordered, n_levels)
        step = float(step_of(step_code))
        if np.rint(np.abs(ordered).max() / step) > MAX_INTEGER:
            raise ConfigError(f"lloyd-max: expected values of at most {MAX_INTEGER * step:g}, found greater ones")
        numbers = np.unique(np.rint(lloyd_levels(ordered, n_levels) / step).astype(np.int64))
        symbols = np.searchsorted(_midpoints(numbers.astype(np.float64) * step), values).astype(np.int32)
        histogram = Histogram.fit(np.bincount(symbols, minlength=len(numbers)))
        return cls(tuple(numbers.tolist()), _best_order(np.diff(numbers) - 1), histogram), symbols, step_code


def lloyd_levels(ordered: Doubles, n_levels: int) -> Doubles:
    """Levels of least squared error by Lloyd's iterations.

    They start where the density of levels is the cube root of that of values, which is the best one in the limit of
    many levels (Panter and Dite); from plain quantiles the tails would take thousands of iterations.

    Args:
        ordered: values, ascending, float64 `[N]`, N at least 1.
        n_levels: 1 to 4096.

    Returns:
        Ascending, float64 `[n]`, n at most `n_levels`.
    """
    distinct = np.unique(ordered)
    if len(distinct) <= n_levels:
        return distinct
    mean = float(ordered.mean())
    ordered = ordered - mean
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    squares = float(ordered @ ordered)
    levels, error = _first_levels(ordered, n_levels), np.inf
    for _ in range(_MAX_ITERATIONS):
        inner = np.searchsorted(ordered, _midpoints(levels))
        ends = np.unique(np.concatenate([[0], inner, [len(ordered)]]))
        cell_sums = np.diff(sums[ends])
        levels = cell_sums / np.diff(ends)
        before, error = error, squares - float(cell_sums @ levels)
        if before - error <= _ENOUGH * error:
            break
    moved_back: Doubles = levels + mean
    return moved_back


def _first_levels(ordered: Doubles, n_levels: int) -> Doubles:
    """Where the integral of density ** (1/3) has risen evenly, the density being taken between quantiles."""
    n_parts = _PARTS * n_levels
    quantiles = ordered[np.arange(n_parts + 1) * (len(ordered) - 1) // n_parts]
    risen = np.concatenate([[0.0], np.cumsum(np.cbrt(np.diff(quantiles) ** 2))])
    levels: Doubles = np.interp((np.arange(n_levels) + 0.5) * risen[-1] / n_levels, risen, quantiles)
    return levels


def _grid(ordered: Doubles, n_levels: int) -> int:
    """Code of the step for levels: near 1/32 of what even ones would have, and not finer than 2**24 steps."""
    wanted = float(ordered[-1] - ordered[0]) / (_GRID * n_levels)
    least = float(np.abs(ordered).max()) / MAX_INTEGER
    code = nearest_code(max(wanted, least))
    return code if float(step_of(code)) >= least else min(code + 1, N_STEPS - 1)


def _midpoints(levels: Doubles) -> Doubles:
    return (levels[1:] + levels[:-1]) / 2


def _write_differences(writer: ParameterWriter, differences: Integers, order: int) -> None:
    for difference in differences.tolist():
        writer.golomb(difference, order)


def _best_order(differences: Integers) -> int:
    return min(range(N_ORDERS), key=lambda order: _bits(differences, order))


def _bits(differences: Integers, order: int) -> float:
    counter = BitCounter()
    _write_differences(counter, differences, order)
    return counter.bits
