from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from llmzip.conditioning.empirical import Empirical
from llmzip.conditioning.gaussian import Gaussian
from llmzip.conditioning.histogram import Histogram
from llmzip.conditioning.hyperpriors import MAX_COORDINATES, Coordinates, Kind, quantise
from llmzip.conditioning.lloyd_max import LloydMax, lloyd_levels
from llmzip.conditioning.normal import normal_rows, sigma_of, step_of
from llmzip.conditioning.registry import Hyperprior
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import ConditionerMissingError, ConfigError, FormatError, LimitError
from llmzip.exact.reference import frequencies

Floats = NDArray[np.float32]
KINDS: tuple[Kind, ...] = get_args(Kind)


def _encode(coordinates: Coordinates) -> bytes:
    encoder = ParameterEncoder()
    coordinates.write(encoder)
    return encoder.finish()


def _normal(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def _squared_error(values: Floats, coordinates: Coordinates) -> float:
    return float(np.mean((values.astype(np.float64) - coordinates.values()) ** 2))


def _assert_read_back(coordinates: Coordinates) -> None:
    found = Coordinates.read(ParameterDecoder(_encode(coordinates)), len(coordinates.symbols))
    assert np.array_equal(found.symbols, coordinates.symbols)
    assert (found.hyperprior, found.step_code) == (coordinates.hyperprior, coordinates.step_code)
    assert np.array_equal(found.values(), coordinates.values())


_VALUES = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.floats(-8192, 8192, width=32) | st.floats(-1, 1, width=32) | st.sampled_from([0.0, 1.0]),
)


@given(_VALUES, st.sampled_from(KINDS), st.integers(1, 40) | st.sampled_from([255, 256, 4096]))
def test_levels_are_read_as_they_were_written(values: Floats, kind: Kind, n_levels: int) -> None:
    """Any values fit at most as many levels as asked for, and every field comes back."""
    if kind == "empirical" and len(values) and np.ptp(values) > 400 * n_levels:
        return
    coordinates = quantise(values, kind, n_levels)
    assert len(coordinates.hyperprior.levels) <= n_levels
    _assert_read_back(coordinates)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4096, 100_003])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 256, 4096])
def test_every_size_is_read_as_it_was_written(kind: Kind, n: int, n_levels: int) -> None:
    """No and many coordinates, one and many levels."""
    _assert_read_back(quantise(_normal(n), kind, n_levels))


def test_the_most_coordinates_are_read_as_they_were_written() -> None:
    """A million under the greatest number of levels."""
    _assert_read_back(quantise(_normal(MAX_COORDINATES), "empirical", 4096))


@given(_VALUES, st.sampled_from([0.01, 0.5, 3.0]))
def test_a_step_rounds_to_the_nearest_multiple(values: Floats, step: float) -> None:
    """With the Gaussian and the empirical hyperprior no value moves by more than half a step."""
    values = np.clip(values, -15, 15)
    for kind in ("gaussian", "empirical"):
        coordinates = quantise(values, kind, step=step)
        errors = np.abs(values.astype(np.float64) - coordinates.values())
        assert errors.max(initial=0) <= float(step_of(coordinates.step_code)) * (0.5 + 2**-20)


@pytest.mark.parametrize("step", [1 / 64, 10 / 256, 1 / 8, 1 / 2])
def test_the_error_is_that_of_rounding(step: float) -> None:
    """The mean squared error is a twelfth of the squared step, within 5 %."""
    values = _normal(100_000)
    coordinates = quantise(values, "gaussian", step=step)
    assert step_of(coordinates.step_code) == step
    assert abs(_squared_error(values, coordinates) / (step**2 / 12) - 1) <= 0.05


def test_halves_are_rounded_to_even() -> None:
    """As the specification's rint does."""
    values = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], dtype=np.float32)
    assert quantise(values, "gaussian", step=1.0).integers().tolist() == [-2, 0, 0, 2, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_cost_nothing_but_a_header(kind: Kind) -> None:
    """One level, so no bits a coordinate."""
    coordinates = quantise(np.zeros(1000, dtype=np.float32), kind, 256)
    assert coordinates.cost().coordinate_bits == 0.0
    assert len(_encode(coordinates)) == 4
    assert not coordinates.values().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_cost_is_that_of_the_stream(kind: Kind, seed: int) -> None:
    """Within two words, for normal, skewed and uniform values."""
    normal = _normal(10_000, seed)
    for values in (normal, np.exp(normal), np.float32(1000) + normal % np.float32(1)):
        coordinates = quantise(values, kind, 256)
        assert abs(coordinates.cost().total_bits - 8 * len(_encode(coordinates))) <= 64


def test_the_published_comparison() -> None:
    """102,400 normal coordinates of 256 levels: better than the published rows, with a fraction of their metadata.

    They were (bits, of these metadata, mean squared error): Gaussian 690,396, 192, 5.107e-4; empirical 804,596, 8,320,
    4.489e-3; Lloyd-Max 803,685, 16,480, 4.065e-5 (training.md, section 5.4).
    """
    values = _normal(102_400)
    gaussian = quantise(values, "gaussian", 256, 10 / 256)
    empirical = quantise(values, "empirical", 256)
    lloyd_max = quantise(values, "lloyd-max", 256)
    costs = [coordinates.cost() for coordinates in (gaussian, empirical, lloyd_max)]
    errors = [_squared_error(values, coordinates) for coordinates in (gaussian, empirical, lloyd_max)]
    assert [cost.total_bits <= bound for cost, bound in zip(costs, (690_396, 804_596, 803_685), strict=True)] == [
        True
    ] * 3
    assert [cost.metadata_bits <= bound for cost, bound in zip(costs, (40, 100, 4000), strict=True)] == [True] * 3
    assert [error <= bound for error, bound in zip(errors, (1.28e-4, 1.36e-4, 4.2e-5), strict=True)] == [True] * 3
    assert errors[2] < errors[0]


def test_a_histogram_pays_for_itself() -> None:
    """Two heaps cost almost their entropy under it, and far more under one normal distribution."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(-3, 0.5, 5000), rng.normal(2, 0.2, 15000)]).astype(np.float32)
    coordinates = quantise(values, "empirical", 64)
    counts = np.bincount(coordinates.symbols)
    entropy = float(-(counts[counts > 0] * np.log2(counts[counts > 0] / len(values))).sum())
    assert coordinates.cost().total_bits <= 1.01 * entropy
    assert quantise(values, "gaussian", step=float(step_of(coordinates.step_code))).cost().total_bits > 1.3 * entropy


def test_lloyd_levels_are_centres_of_their_cells() -> None:
    """On values that fall into clear groups, the levels are the means; few distinct values are levels themselves."""
    values = np.sort(np.concatenate([c + np.array([-0.1, 0.0, 0.1]) for c in (-5.0, 1.0, 9.0)]))
    assert np.allclose(lloyd_levels(values, 3), [-5, 1, 9], rtol=0, atol=1e-12)
    assert lloyd_levels(np.array([1.0, 1.0, 4.0]), 2).tolist() == [1.0, 4.0]


def test_lloyd_max_finds_what_theory_promises() -> None:
    """The error of few levels for a normal distribution is Max's (IRE Transactions on Information Theory, 1960)."""
    values = _normal(200_000)
    for n_levels, expected in ((2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)):
        assert abs(_squared_error(values, quantise(values, "lloyd-max", n_levels)) / expected - 1) <= 0.02


_HISTOGRAM = Histogram(mean=19, sigma_code=60, shift=6, spread=Gaussian(3, 70), differences=(0, -1, 3, 0))
_SYMBOLS = np.array([0, 1, 2, 2, 3, 2, 1, 0], dtype=np.int32)


@pytest.mark.parametrize(
    ("hyperprior", "expected"),
    [
        (Gaussian(radius=2, sigma_code=64), "18002a28 7ca25659"),
        (Empirical(first=-2, histogram=_HISTOGRAM), "48863168 b801b501 d25310af"),
        (LloydMax(numbers=(-70, -9, 12, 90), order=5, histogram=_HISTOGRAM), "31fc31a8 39e80261 167b2727 cf3a7a87"),
    ],
    ids=KINDS,
)
def test_streams_are_pinned(hyperprior: Hyperprior, expected: str) -> None:
    """These bytes must never change."""
    coordinates = Coordinates(hyperprior, _SYMBOLS, 160)
    _assert_read_back(coordinates)
    assert _encode(coordinates).hex(" ", 4) == expected


def test_frequencies_of_a_histogram_are_pinned() -> None:
    """These numbers must never change."""
    assert _HISTOGRAM.frequencies().tolist() == [3169098, 6764767, 5793905, 1049446]


@given(
    st.integers(0, 255),
    st.integers(0, 11),
    st.integers(0, 2047),
    st.lists(st.integers(-2047, 2047), min_size=2),
    st.data(),
)
def test_frequencies_of_a_histogram_are_those_of_the_specification(
    sigma_code: int, shift: int, radius: int, differences: list[int], data: st.DataObject
) -> None:
    """Square roots, differences, squares, shared out: whatever the differences, all frequencies are positive."""
    mean = data.draw(st.integers(0, 16 * (len(differences) - 1)))
    histogram = Histogram(mean, sigma_code, shift, Gaussian(radius, 0), tuple(differences))
    normal = normal_rows(np.array([sigma_of(sigma_code)]), np.array([mean]), 0, len(differences))[0].tolist()
    roots = [math.isqrt(g) + d * 2**shift for g, d in zip(normal, differences, strict=True)]
    weights = np.array([[min(max(root, 1), 4096) ** 2 for root in roots]], dtype=np.int64)
    assert histogram.frequencies().tolist() == (frequencies(weights)[0] + 1).tolist()


@given(st.binary(max_size=80).map(lambda raw: raw + bytes(-len(raw) % 4)), st.sampled_from([0, 1, 7, 5000]))
def test_any_bytes_are_read_or_refused(payload: bytes, n: int) -> None:
    """Foreign bytes give coordinates within the limits, or the error of the format."""
    try:
        coordinates = Coordinates.read(ParameterDecoder(payload), n)
    except (FormatError, ConditionerMissingError):
        return
    assert np.isfinite(coordinates.values()).all()
    assert coordinates.symbols.shape == (n,)
    assert 1 <= len(coordinates.hyperprior.levels) <= 4096
    assert np.all(np.diff(coordinates.hyperprior.levels) > 0)


@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.integers(0, 20))
def test_damaged_bytes_are_read_or_refused(kind: Kind, bit: int, kept: int) -> None:
    """One bit turned, or the end cut off."""
    raw = bytearray(_encode(quantise(_normal(300), kind, 30)))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    for payload in (bytes(raw), bytes(raw[: 4 * kept])):
        try:
            assert len(Coordinates.read(ParameterDecoder(payload), 300).values()) == 300
        except (FormatError, ConditionerMissingError):
            continue


def _stream(*numbers: tuple[str, tuple[int, ...]]) -> ParameterDecoder:
    encoder = ParameterEncoder()
    for name, details in numbers:
        getattr(encoder, name)(*details)
    return ParameterDecoder(encoder.finish())


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        (0, [("gamma", (2048,))], "radius: expected at most 2047, found 2048"),
        (1, [("signed", (2**24 + 1,))], r"level: expected at most 2\*\*24"),
        (1, [("signed", (2**24 - 5,)), ("gamma", (10,))], r"level: expected at most 2\*\*24"),
        (1, [("signed", (0,)), ("gamma", (4096,))], "levels less one: expected at most 4095, found 4096"),
        (2, [("gamma", (4096,))], "levels less one: expected at most 4095, found 4096"),
        (2, [("gamma", (1,)), ("signed", (-(2**25),))], r"level: expected at most 2\*\*24"),
        (
            2,
            [("gamma", (1,)), ("signed", (0,)), ("uniform", (0, 16)), ("golomb", (2**24, 0))],
            r"level: expected at most 2\*\*24",
        ),
    ],
)
def test_parameters_beyond_their_limits_are_refused(
    kind: int, numbers: list[tuple[str, tuple[int, ...]]], message: str
) -> None:
    """Each limit has its sentence."""
    decoder = _stream(("uniform", (kind, 4)), ("uniform", (160, 256)), *numbers)
    with pytest.raises(FormatError, match=message):
        Coordinates.read(decoder, 5)


def test_too_many_coordinates_are_refused_before_memory_is_taken() -> None:
    """A number that stands in a file cannot ask for more."""
    with pytest.raises(LimitError, match="at most 1000000"):
        Coordinates.read(ParameterDecoder(b""), 10**12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(kind: Kind, value: float) -> None:
    """They have no level."""
    with pytest.raises(ConfigError, match="finite"):
        quantise(np.array([0, value], dtype=np.float32), kind, 256)


@pytest.mark.parametrize(
    ("kind", "n_levels", "step", "message"),
    [
        ("gaussian", None, None, "found neither"),
        ("gaussian", 0, None, "1 to 4096 levels"),
        ("gaussian", 4097, None, "1 to 4096 levels"),
        ("gaussian", None, 0.0, "positive step"),
        ("gaussian", None, 0.001, "raise the step"),
        ("gaussian", 5, 1.0, "at most 2 steps from 0, found 100"),
        ("empirical", 5, 1.0, "fit 5 levels"),
        ("lloyd-max", None, 1.0, "expected a number of levels"),
        ("lloyd-max", 5, 2.0**-23, "found greater ones"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    kind: Kind, n_levels: int | None, step: float | None, message: str
) -> None:
    """A configuration that contradicts itself or the values."""
    with pytest.raises(ConfigError, match=message):
        quantise(np.array([-100, 0, 100], dtype=np.float32), kind, n_levels, step)


def test_other_shapes_and_too_many_values_are_refused() -> None:
    """A group is a row."""
    for shape in ((2, 2), (MAX_COORDINATES + 1,)):
        with pytest.raises(ConfigError, match="a row of at most"):
            quantise(np.zeros(shape, dtype=np.float32), "gaussian", 3)


def test_the_greatest_floats_have_levels() -> None:
    """The Gaussian hyperprior clips what no step reaches; the others say that it does not fit."""
    values = np.array([3e38, -3e38], dtype=np.float32)
    assert quantise(values, "gaussian", 255).integers().tolist() == [127, -127]
    for kind in ("empirical", "lloyd-max"):
        with pytest.raises(ConfigError, match="expected values"):
            quantise(values, kind, 255)
