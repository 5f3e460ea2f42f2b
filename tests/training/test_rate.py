# ruff: noqa: TID253
from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ConfigError
from llmzip_training.rate import GROUP_BITS, QuantisedRows, gaussian_bits, row_groups, uniform_noise

magnitudes = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)


@given(st.integers(-9, 9), magnitudes, st.floats(0.2, 5))
def test_bits_are_those_of_the_interval(k: int, deviation: float, ratio: float) -> None:
    """As the distribution function of the standard library gives them, where that is exact."""
    normal, step = NormalDist(0, deviation), ratio * deviation
    probability = normal.cdf((0.5 - abs(k)) * step) - normal.cdf((-0.5 - abs(k)) * step)
    if probability > 1e-12:
        numbers = (torch.tensor(number, dtype=torch.float64) for number in (k * step, step, deviation))
        assert gaussian_bits(*numbers).item() == pytest.approx(-math.log2(probability), rel=1e-6, abs=1e-9)


@given(st.floats(-1e6, 1e6), magnitudes, magnitudes)
def test_bits_and_their_gradients_are_finite(value: float, step: float, deviation: float) -> None:
    """However far, narrow or wide the interval is."""
    numbers = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (value, step, deviation)]
    bits = gaussian_bits(*numbers)
    bits.backward()  # type: ignore[no-untyped-call]
    assert 0 <= bits.item() < math.inf
    assert all(number.grad is not None and number.grad.isfinite() for number in numbers)


def test_all_values_together_have_probability_one() -> None:
    """So that the bits are those of a code."""
    values = 0.3 * torch.arange(-60, 61, dtype=torch.float64)
    step, deviation = torch.tensor([0.3, 1.7], dtype=torch.float64)
    bits = gaussian_bits(values, step, deviation)
    assert torch.exp2(-bits).sum().item() == pytest.approx(1, abs=1e-9)


def test_rounded_rows_are_multiples_of_their_steps() -> None:
    """Each group has its own; the gradient by the rows is that of the identity."""
    rows = QuantisedRows(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), row_groups(2, 3), 0.5)
    rounded = rows.rounded()
    ratios = rounded / rows.steps[rows.groups][:, None]
    torch.testing.assert_close(ratios, ratios.round(), rtol=0, atol=1e-4)
    assert ((rounded - rows.rows).abs() <= 0.5001 * rows.steps[rows.groups][:, None]).all()
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert rows.rows.grad is not None
    assert (rows.rows.grad == 1).all()


def test_rate_falls_with_coarser_steps() -> None:
    """Its gradients by steps, deviations and rows have the signs that training needs."""
    rows = QuantisedRows(torch.ones(4, 8), row_groups(0, 4), 0.1)
    rows.bits(rows.noised(torch.zeros(4, 8))).backward()  # type: ignore[no-untyped-call]
    assert rows.log_steps.grad is not None
    assert rows.rows.grad is not None
    assert (rows.log_steps.grad < 0).all()
    assert (rows.rows.grad > 0).all()


def test_groups_cost_something() -> None:
    """Their steps and deviations are written too."""
    rows = QuantisedRows(torch.zeros(3, 8), row_groups(0, 3), 1.0)
    with torch.no_grad():
        rows.log_steps.add_(20.0)
    assert rows.bits(rows.rounded()).item() == pytest.approx(3 * GROUP_BITS)


def test_noise_is_a_function_of_the_step() -> None:
    """From -1/2 to 1/2, and another one in another step."""
    noise = uniform_noise(torch.Size((50, 20)), 3, 7)
    assert torch.equal(noise, uniform_noise(torch.Size((50, 20)), 3, 7))
    assert not torch.equal(noise, uniform_noise(torch.Size((50, 20)), 3, 8))
    assert noise.abs().max() <= 0.5
    assert abs(noise.mean().item()) < 0.05


def test_no_rows_are_refused() -> None:
    """There is nothing to train."""
    with pytest.raises(ConfigError, match="expected prefix rows or shifts"):
        QuantisedRows(torch.zeros(0, 8), row_groups(0, 0), 1.0)
