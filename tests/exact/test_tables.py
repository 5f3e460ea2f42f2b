from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec, RotaryScaling
from llmzip.exact.tables import exp2_table, normal_table, rotary_tables, spec_rotary_tables

# The recurrence and the rounding to Q1.14: ARITHMETIC.md, section 9.
ROTARY_BOUND = 2.0**-15 + 2.0**-18


def _digest(*arrays: NDArray[Any]) -> str:
    parts = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_digests_are_those_of_the_specification() -> None:
    """The tables of ARITHMETIC.md, section 3, are the same on every machine."""
    assert _digest(exp2_table()) == "17432fbf2d7753a5e760b7668f69ce7093f4d593851bd803f6f1159669f50fea"
    assert _digest(normal_table()) == "5d50e6d7928c196de60fc96fc5f7b83ef3344fb2cc3a1f13b587fa5579759395"
    rotary = rotary_tables(64, 10000.0, None, 2048)
    assert _digest(*rotary) == "d3c0be5930e68329ad79f0772e8fa50b2be643f5974355f4cdf1d74f85704a9e"


def test_exponentials_are_the_nearest_integers() -> None:
    """Half a unit from 2**24 * 2**(-f / 1024), and a bit for the float twin itself."""
    steps = np.arange(1024) / 1024
    assert exp2_table().dtype == np.int32
    assert np.abs(exp2_table() - 2.0**24 * np.exp2(-steps)).max() <= 0.5 + 1e-6


def test_normal_distribution_is_within_half_a_unit() -> None:
    """Against the error function of libm; the first is a half, the last one."""
    exact = [0.5 * (1 + math.erf(i / 256 / math.sqrt(2))) for i in range(1537)]
    table = normal_table()
    assert np.abs(table - np.array(exact)).max() <= 2.0**-25 + 1e-12
    assert (float(table[0]), float(table[-1])) == (0.5, 1.0)
    assert (np.diff(table) >= 0).all()


@pytest.mark.parametrize(
    ("base", "width", "scaling"),
    [
        (10000.0, 64, None),
        (1e6, 128, None),
        (500000.0, 64, RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192)),
        (10000.0, 16, RotaryScaling("linear", 8.0)),
        (100.0, 2, None),
    ],
    ids=str,
)
def test_rotary_tables_are_cosines_and_sines(base: float, width: int, scaling: RotaryScaling | None) -> None:
    """At all 2048 positions within the stated bound, in whole units of 2**-14."""
    frequencies = base ** -(np.arange(0, width, 2) / width)
    if scaling is not None:
        frequencies = np.array([_scaled(frequency, scaling) for frequency in frequencies])
    angles = np.arange(2048)[:, None] * frequencies
    cos, sin = rotary_tables(width, base, scaling, 2048)
    assert np.abs(cos - np.cos(angles)).max() <= ROTARY_BOUND
    assert np.abs(sin - np.sin(angles)).max() <= ROTARY_BOUND
    for table in (cos, sin):
        assert np.array_equal(table * 2**14, np.rint(table * 2**14))


def _scaled(frequency: float, scaling: RotaryScaling) -> float:
    if scaling.kind == "linear":
        return frequency / scaling.factor
    turns = scaling.original_positions * frequency / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    keep = min(max((turns - low) / (high - low), 0), 1)
    return frequency * keep + frequency / scaling.factor * (1 - keep)


def test_fewer_positions_are_a_prefix() -> None:
    """A table does not depend on how long it is."""
    for short, long in zip(rotary_tables(32, 1e4, None, 5), rotary_tables(32, 1e4, None, 70), strict=True):
        assert np.array_equal(short, long[:5])


def test_local_layers_have_their_own_base_and_no_scaling() -> None:
    """As Gemma has it."""
    spec = ModelSpec(
        "made",
        8,
        8,
        1,
        1,
        1,
        8,
        8,
        64,
        0,
        rotary_width=8,
        rotary_scaling=RotaryScaling("linear", 8.0),
        local_rotary_base=50.0,
    )
    found, wide = spec_rotary_tables(spec, True, 9), spec_rotary_tables(spec, False, 9)
    assert np.array_equal(found[0], rotary_tables(8, 50.0, None, 9)[0])
    assert np.array_equal(wide[1], rotary_tables(8, 10000.0, spec.rotary_scaling, 9)[1])


def test_tables_cannot_be_changed() -> None:
    """They are shared by all models of a process."""
    with pytest.raises(ValueError, match="read-only"):
        exp2_table()[0] = 1
