"""Normal distributions over the whole numbers, and the one-byte numbers that scale them, without a float function.

A reader must compute these frequencies to the last one as the writer did, on any machine. So they come from the
integer table of the normal distribution function (ARITHMETIC.md, section 3.3) by integer arithmetic.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.reference import FREQUENCY_BITS, frequencies
from llmzip.exact.tables import NORMAL_STEPS, normal_table

Integers = NDArray[np.int64]

MAX_RADIUS = 2047
MAX_LEVELS = 4096
N_STEPS = 256
SIGMA_ONE = 256
MAX_SIGMA = 1 << 20
MEAN_ONE = 16

_FRACTION_BITS = 14
# One unit of a mean by one unit of a sigma, in steps of the table.
_PLACES = SIGMA_ONE // MEAN_ONE * NORMAL_STEPS << _FRACTION_BITS


def step_of(code: int) -> np.float32:
    """The number of a one-byte code, (8 + code mod 8) * 2**(code // 8 - 26), exactly: 2**-23 to 480.

    Args:
        code: 0 to 255.

    >>> float(step_of(184)), float(step_of(185))
    (1.0, 1.125)
    """
    if not 0 <= code <= 255:
        raise ValueError(f"step: expected a code from 0 to 255, found {code}")
    return np.float32(np.ldexp(8 + code % 8, code // 8 - 26))


def nearest_code(value: float) -> int:
    """The code whose number is nearest to `value`, which is finite; of two the lower."""
    return int(np.abs(_steps() - value).argmin())


def sigma_of(code: int) -> int:
    """The standard deviation of a one-byte code, (16 + code mod 16) * 2**(code // 16), in units of 2**-8.

    Args:
        code: 0 to 255.

    >>> sigma_of(0), sigma_of(64), sigma_of(255)
    (16, 256, 1015808)
    """
    if not 0 <= code <= 255:
        raise ValueError(f"sigma: expected a code from 0 to 255, found {code}")
    return (16 + code % 16) << (code // 16)


def nearest_sigma_code(sigma: float) -> int:
    """The code whose standard deviation is nearest to `sigma`, given in steps; of two the lower."""
    return int(np.abs(_sigmas() - sigma * SIGMA_ONE).argmin())


def normal_frequencies(sigma: int, mean: int, radius: int) -> Integers:
    """Frequencies of the whole numbers -radius to radius under a normal distribution, rounded to them.

    Args:
        sigma: the standard deviation in units of 2**-8, 1 to 2**20.
        mean: in units of 2**-4, -16 * radius to 16 * radius.
        radius: 0 to 2047.

    Returns:
        int64 `[2 * radius + 1]`, each at least 1, sum 2**24.
    """
    row: Integers = normal_rows(np.array([sigma]), np.array([mean]), -radius, 2 * radius + 1)[0]
    return row


def normal_rows(sigmas: Integers, means: Integers, first: int, n: int) -> Integers:
    """Frequencies of the whole numbers first to first + n - 1 under one normal distribution a row.

    Number k weighs Phi((k + 1/2 - mean) / sigma) - Phi((k - 1/2 - mean) / sigma), and the weights are shared out by the
    rule of ARITHMETIC.md, section 5.2.

    Args:
        sigmas: int64 `[M]`, in units of 2**-8, each 1 to 2**20.
        means: int64 `[M]`, in units of 2**-4, each 16 * first to 16 * (first + n - 1).
        first: -2047 to 4095.
        n: 1 to 4096.

    Returns:
        int64 `[M, n]`, each at least 1, each row with the sum 2**24.

    Raises:
        ValueError: an argument out of its range.
    """
    if not (-MAX_RADIUS <= first < MAX_LEVELS and 1 <= n <= MAX_LEVELS):
        raise ValueError(f"normal: expected 1 to {MAX_LEVELS} numbers from -{MAX_RADIUS} on, found {n} from {first}")
    if (sigmas < 1).any() or (sigmas > MAX_SIGMA).any():
        raise ValueError(f"normal: expected standard deviations of 1 to {MAX_SIGMA}")
    if (means < MEAN_ONE * first).any() or (means > MEAN_ONE * (first + n - 1)).any():
        raise ValueError("normal: expected means among the numbers")
    edges = MEAN_ONE * (np.arange(n + 1) + first) - MEAN_ONE // 2
    below = _distribution(edges[None, :] - means[:, None], sigmas[:, None])
    return frequencies(np.diff(below, axis=1)) + 1


def _distribution(distances: Integers, sigmas: Integers) -> Integers:
    """Phi(distance / sigma) in units of 2**-38, for distances in units of 2**-4 and sigmas of 2**-8."""
    table = _table()
    last = len(table) - 1
    places = np.minimum(np.abs(distances) * _PLACES // sigmas, last << _FRACTION_BITS)
    index = np.minimum(places >> _FRACTION_BITS, last - 1)
    rest = places - (index << _FRACTION_BITS)
    phi = (table[index] << _FRACTION_BITS) + (table[index + 1] - table[index]) * rest
    values: Integers = np.where(distances < 0, (1 << FREQUENCY_BITS + _FRACTION_BITS) - phi, phi)
    return values


@functools.cache
def _table() -> Integers:
    """Phi(i / 256) in units of 2**-24, exactly, int64 `[1537]`."""
    return (normal_table().astype(np.float64) * 2.0**FREQUENCY_BITS).astype(np.int64)


@functools.cache
def _steps() -> NDArray[np.float64]:
    return np.array([step_of(code) for code in range(256)], dtype=np.float64)


@functools.cache
def _sigmas() -> NDArray[np.float64]:
    return np.array([sigma_of(code) for code in range(256)], dtype=np.float64)
