"""The transcendental functions of the coding path, as integer tables.

No library function for exp, sin, cos or erf is correctly rounded everywhere, so none may touch
the coding path. The tables here come from Python's `decimal` module, whose `exp` and `ln` are
correctly rounded by specification, and from integer recurrences; `tests/exact/test_tables.py`
pins their digests. ARITHMETIC.md, section 3, defines them.
"""

from __future__ import annotations

import functools
from decimal import Decimal, localcontext
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec, RotaryScaling

EXP_STEPS = 1024
EXP_SCALE_BITS = 24
ROTARY_BITS = 14
NORMAL_STEPS = 256
NORMAL_LIMIT = 6

_Number = TypeVar("_Number", bound=np.generic)

_PRECISION = 40
_PI = Decimal("3.141592653589793238462643383279502884197169399375105820974944592307816")
_RECURRENCE_BITS = 30


@functools.cache
def exp2_table() -> NDArray[np.int32]:
    """`round(2**24 * 2**(-f / 1024))` for f = 0 .. 1023, shape `[1024]`, dtype int32.

    Source: ARITHMETIC.md, section 3.1.
    """
    with localcontext() as context:
        context.prec = _PRECISION
        step = Decimal(2).ln() / EXP_STEPS
        one = Decimal(1 << EXP_SCALE_BITS)
        values = [int((one * (-step * f).exp()).to_integral_value()) for f in range(EXP_STEPS)]
    return _frozen(np.array(values, dtype=np.int32))


@functools.cache
def normal_table() -> NDArray[np.float32]:
    """The standard normal distribution function at i / 256 for i = 0 .. 1536, in units of 2**-24.

    Every value is an integer of at most 25 bits times 2**-24, rounded to float32 once.

    Source: ARITHMETIC.md, section 3.3.
    """
    with localcontext() as context:
        context.prec = _PRECISION
        values = [_normal_units(Decimal(i) / NORMAL_STEPS) for i in range(NORMAL_LIMIT * NORMAL_STEPS + 1)]
    return _frozen((np.array(values, dtype=np.float64) / 2.0**24).astype(np.float32))


def _normal_units(x: Decimal) -> int:
    """`round(2**24 * Phi(x))` by the power series of the integral of exp(-t*t/2)."""
    term, total, n = x, x, 0
    while abs(term) > Decimal("1e-30"):
        n += 1
        term = -term * x * x / (2 * n)
        total += term / (2 * n + 1)
    density = total / (2 * _PI).sqrt()
    return int(((Decimal("0.5") + density) * (1 << 24)).to_integral_value())


@functools.cache
def rotary_tables(
    rotary_width: int, base: float, scaling: RotaryScaling | None, n_positions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of position times frequency, in Q1.14 held exactly in float32.

    Args:
        rotary_width: rotated channels of a head, even.
        base: the base of the frequencies.
        scaling: how the frequencies are stretched, or None.
        n_positions: rows wanted, at most 2048.

    Returns:
        Two arrays of shape `[n_positions, rotary_width // 2]`, multiples of 2**-14.

    Source: ARITHMETIC.md, section 3.2.
    """
    first = [_cos_sin(angle) for angle in _frequencies(rotary_width, base, scaling)]
    cos_1 = np.array([c for c, _ in first], dtype=np.int64)
    sin_1 = np.array([s for _, s in first], dtype=np.int64)
    cos = np.empty((n_positions, rotary_width // 2), dtype=np.int64)
    sin = np.empty_like(cos)
    cos[0], sin[0] = 1 << _RECURRENCE_BITS, 0
    half = 1 << (_RECURRENCE_BITS - 1)
    for p in range(1, n_positions):
        cos[p] = (cos[p - 1] * cos_1 - sin[p - 1] * sin_1 + half) >> _RECURRENCE_BITS
        sin[p] = (sin[p - 1] * cos_1 + cos[p - 1] * sin_1 + half) >> _RECURRENCE_BITS
    return _to_q14(cos), _to_q14(sin)


def spec_rotary_tables(
    spec: ModelSpec, local: bool, n_positions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The tables of a model's global layers, or of its local ones (their own base, never scaled)."""
    if local:
        return rotary_tables(spec.rotary_width, spec.local_rotary_base, None, n_positions)
    return rotary_tables(spec.rotary_width, spec.rotary_base, spec.rotary_scaling, n_positions)


def _frequencies(rotary_width: int, base: float, scaling: RotaryScaling | None) -> list[Decimal]:
    with localcontext() as context:
        context.prec = _PRECISION
        log_base = Decimal(base).ln()
        plain = [(-log_base * 2 * i / rotary_width).exp() for i in range(rotary_width // 2)]
        return [_scaled(frequency, scaling) for frequency in plain]


def _scaled(frequency: Decimal, scaling: RotaryScaling | None) -> Decimal:
    if scaling is None:
        return frequency
    factor = Decimal(scaling.factor)
    if scaling.kind == "linear":
        return frequency / factor
    low, high = Decimal(scaling.low_frequency_factor), Decimal(scaling.high_frequency_factor)
    turns = Decimal(scaling.original_positions) * frequency / (2 * _PI)
    if turns < low:
        return frequency / factor
    if turns > high:
        return frequency
    blend = (turns - low) / (high - low)
    return (1 - blend) * frequency / factor + blend * frequency


def _cos_sin(angle: Decimal) -> tuple[int, int]:
    """Cosine and sine of an angle below 2, by Taylor series, in units of 2**-30."""
    with localcontext() as context:
        context.prec = _PRECISION
        angle %= 2 * _PI
        cos, sin, term, n = Decimal(0), Decimal(0), Decimal(1), 0
        while abs(term) > Decimal("1e-30"):
            sign = -1 if n % 4 >= 2 else 1
            if n % 2:
                sin += sign * term
            else:
                cos += sign * term
            n += 1
            term = term * angle / n
        one = Decimal(1 << _RECURRENCE_BITS)
        return int((cos * one).to_integral_value()), int((sin * one).to_integral_value())


def _to_q14(values: NDArray[np.int64]) -> NDArray[np.float32]:
    shift = _RECURRENCE_BITS - ROTARY_BITS
    rounded = (values + (1 << (shift - 1))) >> shift
    return _frozen((rounded / 2.0**ROTARY_BITS).astype(np.float32))


def _frozen(array: NDArray[_Number]) -> NDArray[_Number]:
    array.flags.writeable = False
    return array


# In place of tables that a model has no use for: of their types, so that one compilation serves all models.
NO_ANGLES = _frozen(np.zeros((1, 0), dtype=np.float32))
NO_NORMAL = _frozen(np.zeros(0, dtype=np.float32))
