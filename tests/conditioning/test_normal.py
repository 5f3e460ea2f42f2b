from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.conditioning.normal import (
    MAX_SIGMA,
    nearest_code,
    nearest_sigma_code,
    normal_frequencies,
    normal_rows,
    sigma_of,
    step_of,
)
from llmzip.exact.reference import frequencies
from llmzip.exact.tables import normal_table

TOTAL = 1 << 24


def _as_specified(sigma: int, mean: int, radius: int) -> list[int]:
    """The specification's formulas in Python's integers and fractions."""
    table = [int(Fraction(float(value)) * TOTAL) for value in normal_table()]

    def phi(distance: int) -> int:
        place = min(abs(distance) * 2**26 // sigma, 1536 * 2**14)
        index, rest = min(place // 2**14, 1535), place - min(place // 2**14, 1535) * 2**14
        value = table[index] * 2**14 + (table[index + 1] - table[index]) * rest
        return value if distance >= 0 else 2**38 - value

    weights = [phi(16 * k + 8 - mean) - phi(16 * k - 8 - mean) for k in range(-radius, radius + 1)]
    shares = frequencies(np.array([weights], dtype=np.int64))[0]
    return [int(share) + 1 for share in shares]


@given(st.integers(1, 300) | st.integers(1, MAX_SIGMA), st.integers(0, 30), st.integers(-480, 480))
def test_frequencies_are_those_of_the_specification(sigma: int, radius: int, mean: int) -> None:
    """Every integer follows from the table by the written formulas."""
    mean = max(-16 * radius, min(16 * radius, mean))
    assert normal_frequencies(sigma, mean, radius).tolist() == _as_specified(sigma, mean, radius)


@given(st.integers(1, MAX_SIGMA), st.integers(-2047, 4095), st.integers(1, 4096), st.integers(0, 2**32))
def test_frequencies_are_positive_and_sum_to_the_total(sigma: int, first: int, n: int, seed: int) -> None:
    """Whatever the parameters, each number can be coded."""
    mean = np.random.default_rng(seed).integers(16 * first, 16 * (first + n - 1), size=3, endpoint=True)
    rows = normal_rows(np.array([1, sigma, MAX_SIGMA]), mean, first, n)
    assert rows.min() >= 1
    assert rows.sum(axis=1).tolist() == [TOTAL] * 3


def test_extremes_stay_within_64_bits() -> None:
    """The farthest number under the smallest deviation, and one number under the greatest."""
    assert normal_rows(np.array([1]), np.array([0]), 0, 4096)[0].tolist() == [TOTAL - 4095] + [1] * 4095
    assert normal_rows(np.array([1]), np.array([16 * 4095]), 0, 4096)[0].tolist() == [1] * 4095 + [TOTAL - 4095]
    assert normal_frequencies(MAX_SIGMA, 0, 0).tolist() == [TOTAL]


@pytest.mark.parametrize(("sigma", "mean", "radius"), [(0.0625, 0, 3), (0.5, 5, 9), (1, 0, 8), (3.25, -17, 40)])
def test_frequencies_are_near_the_normal_distribution(sigma: float, mean: int, radius: int) -> None:
    """Within 20 units for the table and its interpolation, and one a number for sharing out."""
    edges = [(k - 0.5 - mean / 16) / sigma / math.sqrt(2) for k in range(-radius, radius + 2)]
    below = np.array([math.erf(edge) / 2 for edge in edges])
    exact = TOTAL * np.diff(below) / (below[-1] - below[0])
    found = normal_frequencies(int(256 * sigma), mean, radius)
    assert np.abs(found - exact).max() <= 20 + 2 * radius + 1


def test_mean_zero_is_symmetric() -> None:
    """A number and its negative are equally probable."""
    row = normal_frequencies(700, 0, 20)
    assert row.tolist() == row[::-1].tolist()


def test_rows_are_single_rows() -> None:
    """What stands in other rows does not matter."""
    sigmas, means = np.array([16, 256, 4000]), np.array([0, -16, 33])
    rows = normal_rows(sigmas, means, -7, 15)
    singles = [normal_frequencies(int(s), int(m), 7) for s, m in zip(sigmas, means, strict=True)]
    assert np.array_equal(rows, np.stack(singles))


def test_a_row_is_pinned() -> None:
    """These numbers must never change."""
    assert normal_frequencies(256, 3, 3).tolist() == [58523, 707637, 3359561, 6325060, 4744887, 1415144, 166404]


@pytest.mark.parametrize(
    ("sigma", "mean", "first", "n"),
    [(0, 0, 0, 1), (MAX_SIGMA + 1, 0, 0, 1), (1, -1, 0, 1), (1, 17, 0, 2), (1, 0, 0, 0), (1, 0, 0, 4097)],
)
def test_parameters_out_of_range_are_refused(sigma: int, mean: int, first: int, n: int) -> None:
    """A caller's mistake."""
    with pytest.raises(ValueError, match="normal: expected"):
        normal_rows(np.array([sigma]), np.array([mean]), first, n)


def test_steps_are_exact() -> None:
    """Every code is its formula, to the last bit, and greater than the one before."""
    steps = [step_of(code) for code in range(256)]
    assert [Fraction(float(step)) for step in steps] == [
        (8 + code % 8) * Fraction(2) ** (code // 8 - 26) for code in range(256)
    ]
    assert steps == sorted(set(steps))
    assert (float(steps[0]), float(steps[255])) == (2.0**-23, 480.0)


def test_deviations_ascend() -> None:
    """From 1/16 to almost 4096 steps."""
    sigmas = [sigma_of(code) for code in range(256)]
    assert sigmas == sorted(set(sigmas))
    assert (sigmas[0], sigmas[255]) == (16, 31 << 15)


@given(st.integers(0, 255))
def test_codes_are_nearest_to_their_own_numbers(code: int) -> None:
    """Looking a number up gives its code, also from 1 % beside it."""
    assert nearest_code(float(step_of(code)) * 1.01) == code
    assert nearest_sigma_code(sigma_of(code) / 256 * 0.99) == code


@pytest.mark.parametrize("code", [-1, 256])
def test_codes_are_bytes(code: int) -> None:
    """No others have a number."""
    with pytest.raises(ValueError, match="0 to 255"):
        step_of(code)
    with pytest.raises(ValueError, match="0 to 255"):
        sigma_of(code)
