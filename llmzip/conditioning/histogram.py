"""How often each of n levels occurs, in a few bits: a normal distribution over their indices, and what differs from it.

Differences are taken between square roots of frequencies, where sampling noise is equal everywhere, and in units that
are coarse enough to leave most of the noise out. They are whole numbers around 0, so they are coded as the Gaussian
hyperprior codes coordinates. A histogram that is normal anyway costs some 30 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.gaussian import Gaussian, bits_under, descend
from llmzip.conditioning.normal import MAX_RADIUS, MEAN_ONE, nearest_sigma_code, normal_rows, sigma_of
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterWriter
from llmzip.exact.reference import FREQUENCY_BITS, frequencies

Integers = NDArray[np.int64]

N_SHIFTS = 12

_GREATEST_ROOT = 1 << FREQUENCY_BITS // 2


@dataclass(frozen=True)
class Histogram:
    """A distribution over the indices 0 to n - 1.

    Args:
        mean: of the normal distribution over the indices, in units of 2**-4, 0 to 16 * (n - 1).
        sigma_code: of its standard deviation, 0 to 255.
        shift: log2 of the unit of the differences, 0 to 11.
        spread: under which the differences are coded.
        differences: n of them, 1 to 4096, each within the radius of `spread`.
    """

    mean: int
    sigma_code: int
    shift: int
    spread: Gaussian
    differences: tuple[int, ...]

    def frequencies(self) -> Integers:
        """How probable each index is, int64 `[n]`, each at least 1, sum 2**24."""
        roots = _roots(self._normal()) + (np.array(self.differences, dtype=np.int64) << self.shift)
        row: Integers = frequencies(np.clip(roots, 1, _GREATEST_ROOT)[None, :] ** 2)[0] + 1
        return row

    def write(self, writer: ParameterWriter) -> None:
        """Write all but n; nothing if that is 1."""
        n = len(self.differences)
        if n == 1:
            return
        writer.uniform(self.mean, MEAN_ONE * (n - 1) + 1)
        writer.uniform(self.sigma_code, 256)
        writer.uniform(self.shift, N_SHIFTS)
        self.spread.write(writer)
        self.spread.write_symbols(writer, np.array(self.differences, dtype=np.int32) + np.int32(self.spread.radius))

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:
        """Read a distribution over n indices, 1 to 4096.

        Raises:
            FormatError: no writer makes this payload.
        """
        if n == 1:
            return cls(0, 0, 0, Gaussian(0, 0), (0,))
        mean = decoder.uniform(MEAN_ONE * (n - 1) + 1)
        sigma_code = decoder.uniform(256)
        shift = decoder.uniform(N_SHIFTS)
        spread = Gaussian.read(decoder, n)
        symbols = spread.read_symbols(decoder, n)
        return cls(mean, sigma_code, shift, spread, tuple((symbols - spread.radius).tolist()))

    @classmethod
    def fit(cls, counts: Integers) -> Self:
        """The cheapest for symbols that occur so often, int64 `[n]`, itself included."""
        plain = cls._fit_normal(counts)
        if len(counts) == 1:
            return plain
        roots = _roots(plain._normal())
        wanted = np.sqrt(counts / counts.sum()) * _GREATEST_ROOT
        candidates = [plain._with_differences(wanted - roots, shift) for shift in range(N_SHIFTS)]
        return min(candidates, key=lambda candidate: candidate._bits(counts))

    @classmethod
    def _fit_normal(cls, counts: Integers) -> Self:
        n, total = len(counts), max(1, int(counts.sum()))
        mean = float(counts @ np.arange(n)) / total
        deviation = float(np.sqrt(counts @ (np.arange(n) - mean) ** 2 / total))
        plain = cls(round(MEAN_ONE * mean), 0, 0, Gaussian(0, 0), (0,) * n)
        if n == 1:
            return plain
        code = descend(
            lambda code: bits_under(counts, replace(plain, sigma_code=code)._normal()), nearest_sigma_code(deviation)
        )
        return replace(plain, sigma_code=code)

    def _with_differences(self, exact: NDArray[np.float64], shift: int) -> Self:
        differences = np.clip(np.rint(exact / (1 << shift)), -MAX_RADIUS, MAX_RADIUS).astype(np.int64)
        return replace(self, shift=shift, spread=Gaussian.fit(differences), differences=tuple(differences.tolist()))

    def _bits(self, counts: Integers) -> float:
        counter = BitCounter()
        self.write(counter)
        return counter.bits + bits_under(counts, self.frequencies())

    def _normal(self) -> Integers:
        sigmas = np.array([sigma_of(self.sigma_code)])
        row: Integers = normal_rows(sigmas, np.array([self.mean]), 0, len(self.differences))[0]
        return row


def _roots(numbers: Integers) -> Integers:
    """Square roots, rounded down; exact, for numbers below 2**50."""
    return np.sqrt(numbers.astype(np.float64)).astype(np.int64)
