from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.quantised import KINDS, expect_same, quantised
from llmzip.conditioning.hyperpriors import Coordinates, Kind, quantise
from llmzip.entropy import ParameterDecoder
from llmzip.errors import ExactnessError


def _normal(n: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_the_stream(kind: Kind) -> None:
    """Coded bits are whole words above what frequencies promise; entropy is below the coordinates' cost."""
    values = _normal(4000)
    found = quantised([values], kind, 64)
    cost = quantise(values, kind, 64).cost()
    assert (found.metadata_bits, found.coordinate_bits) == (cost.metadata_bits, cost.coordinate_bits)
    assert 0 <= found.coded_bits - cost.total_bits <= 64
    assert found.n * found.entropy <= found.coordinate_bits
    assert found.rate == found.coded_bits / 4000
    assert found.ratio == found.rate / 32
    errors = values.astype(np.float64) - quantise(values, kind, 64).values()
    assert found.mse == pytest.approx(np.mean(errors**2))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_quantised_each_by_itself(kind: Kind) -> None:
    """A small one beside a large one keeps its own step."""
    large, small = _normal(500), _normal(300, 1) / np.float32(100)
    both, one, other = (quantised(groups, kind, 32) for groups in ([large, small], [large], [small]))
    assert both.step == 0
    assert both.metadata_bits == one.metadata_bits + other.metadata_bits
    assert both.n * both.mse == pytest.approx(500 * one.mse + 300 * other.mse)
    assert both.coded_bits <= one.coded_bits + other.coded_bits


def test_other_levels_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no figure of what is not read back as it was."""
    read = Coordinates.read

    def misread(decoder: ParameterDecoder, n: int) -> Coordinates:
        found = read(decoder, n)
        return replace(found, symbols=found.symbols[::-1])

    monkeypatch.setattr(Coordinates, "read", misread)
    with pytest.raises(ExactnessError, match="gaussian: expected the levels of 100 coordinates"):
        quantised([_normal(100)], "gaussian", 16)


def test_other_step_is_an_error() -> None:
    """Levels alone are no coordinates."""
    found = quantise(_normal(50), "empirical", 16)
    with pytest.raises(ExactnessError, match="empirical"):
        expect_same(replace(found, step_code=found.step_code + 1), found)
