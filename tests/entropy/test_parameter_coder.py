from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.entropy import BitCounter, ParameterDecoder, ParameterEncoder, ParameterWriter
from llmzip.errors import FormatError
from llmzip.exact.reference import frequencies

Integers = NDArray[np.int64]
TOTAL = 1 << 24
# The name of a method and what it is called with: the number or numbers, then what the decoder needs too.
Call = tuple[str, Any, tuple[Any, ...]]


def _shares(weights: Sequence[Sequence[int]]) -> Integers:
    return frequencies(np.array(weights, dtype=np.int64)) + 1


def _write(calls: Sequence[Call], writer: ParameterWriter) -> None:
    for name, value, details in calls:
        getattr(writer, name)(value, *details)


def _encode(calls: Sequence[Call]) -> bytes:
    encoder = ParameterEncoder()
    _write(calls, encoder)
    return encoder.finish()


def _read(decoder: ParameterDecoder, call: Call) -> Any:
    name, value, details = call
    given = (len(value), *details) if name.startswith("choices") else details
    return getattr(decoder, name)(*given)


def _calls() -> st.SearchStrategy[Call]:
    return st.one_of(_numbers(), _symbols())


@st.composite
def _numbers(draw: st.DrawFn) -> Call:
    name = draw(st.sampled_from(["uniform", "gamma", "signed", "golomb"]))
    if name == "uniform":
        n = draw(st.integers(1, 2**31) | st.integers(1, 50) | st.sampled_from([2**20, 2**20 + 1, 2**16, 2**31]))
        return name, draw(st.integers(0, n - 1)), (n,)
    if name == "signed":
        return name, draw(st.integers(-(2**30), 2**30 - 1) | st.integers(-9, 9)), ()
    value = draw(st.integers(0, 2**31 - 1) | st.integers(0, 20))
    return name, value, (draw(st.integers(0, 30)),) if name == "golomb" else ()


@st.composite
def _symbols(draw: st.DrawFn) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, n_symbols = draw(st.integers(1, 30) | st.sampled_from([1024, 4096])), draw(st.integers(0, 20))
    each = draw(st.booleans()) and n_symbols > 0
    weights = (2.0 ** rng.uniform(0, 24, (n_symbols if each else 1, n))).astype(np.int64)
    symbols = rng.integers(0, n, n_symbols).astype(np.int32)
    rows = frequencies(weights) + 1
    return ("choices_each", symbols, (rows,)) if each else ("choices", symbols, (rows[0],))


def _encode_as_specified(choices: Sequence[tuple[int, int]]) -> bytes:
    """The writer of SPEC.md, section 9.3, in unbounded integers."""
    low, size, shifts = 0, 2**64 - 1, 0
    for before, frequency in choices:
        unit = size >> 24
        low, size = low + unit * before, unit * frequency
        if size < 2**32:
            low, size, shifts = low << 32, size << 32, shifts + 1
    point = (low + 2**32 - 1) >> 32
    words = [point >> 32 * i & 0xFFFFFFFF for i in range(shifts, -1, -1)]
    if ((low + size) >> 32) % 2**32 == point % 2**32:
        words.append(0)
    return b"".join(word.to_bytes(4, "little") for word in words)


def _uniform_choices(value: int, n: int) -> list[tuple[int, int]]:
    """(cumulative frequency, frequency) of each choice that `uniform` documents."""
    if n == 1:
        return []
    if n > 2**20:
        return _uniform_choices(value >> 16, ((n - 1) >> 16) + 1) + _uniform_choices(value % 2**16, 2**16)
    each = TOTAL // n
    return [(value * each, each if value < n - 1 else TOTAL - (n - 1) * each)]


@given(st.lists(st.integers(1, 2**31).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), min_size=1))
def test_uniform_numbers_are_written_as_documented(numbers: list[tuple[int, int]]) -> None:
    """The library's uniform model has the frequencies that the specification names."""
    choices = [choice for value, n in numbers for choice in _uniform_choices(value, n)]
    assert _encode([("uniform", value, (n,)) for value, n in numbers]) == (
        _encode_as_specified(choices) if choices else b""
    )


@given(st.integers(0, 2**31 - 1) | st.integers(0, 300))
def test_gamma_is_written_as_documented(value: int) -> None:
    """Ones, a zero, and the lower bits of value + 1."""
    more = (value + 1).bit_length() - 1
    bits = [1] * more + [0] * (more < 31)
    choices = [choice for bit in bits for choice in _uniform_choices(bit, 2)]
    choices += _uniform_choices(value + 1 - 2**more, 2**more)
    assert _encode([("gamma", value, ())]) == _encode_as_specified(choices)


def test_symbols_are_written_as_documented() -> None:
    """Shared frequencies and rows of them, many and few, have exactly the frequencies handed in."""
    rng = np.random.default_rng(1)
    for n in (2, 3, 256, 1024, 4096):
        rows = _shares((2.0 ** rng.uniform(0, 24, (50, n))).astype(np.int64).tolist())
        symbols = rng.integers(0, n, 50).astype(np.int32)
        own = [(int(row[:s].sum()), int(row[s])) for s, row in zip(symbols, rows, strict=True)]
        assert _encode([("choices_each", symbols, (rows,))]) == _encode_as_specified(own)
        shared = [(int(rows[0, :s].sum()), int(rows[0, s])) for s in symbols]
        assert _encode([("choices", symbols, (rows[0],))]) == _encode_as_specified(shared)


@given(st.lists(_calls(), max_size=12))
def test_what_was_written_is_read(calls: list[Call]) -> None:
    """Any sequence of calls gives its numbers back."""
    decoder = ParameterDecoder(_encode(calls))
    for call in calls:
        assert np.array_equal(_read(decoder, call), call[1])


@given(st.lists(_calls(), max_size=12))
def test_counted_bits_are_those_of_the_stream(calls: list[Call]) -> None:
    """A counter that takes the same calls is within two words, and 1 % that the coder's range may lose."""
    counter = BitCounter()
    _write(calls, counter)
    size_bits = 8 * len(_encode(calls))
    assert counter.bits - 1 <= size_bits <= 1.01 * counter.bits + 64


@given(st.binary(max_size=64) | st.integers(0, 16).map(lambda n: b"\xff" * 4 * n), st.lists(_calls(), max_size=12))
def test_any_bytes_are_read_or_refused(payload: bytes, calls: list[Call]) -> None:
    """Foreign bytes give numbers within their ranges or the error of the format, whatever is asked."""
    try:
        decoder = ParameterDecoder(payload)
    except FormatError:
        assert len(payload) % 4
        return
    for call in calls:
        try:
            found = _read(decoder, call)
        except FormatError:
            continue
        _write([(call[0], found, call[2])], BitCounter())


def test_beyond_the_end_words_are_zero() -> None:
    """An empty stream is one of zeros without end."""
    decoder = ParameterDecoder(b"")
    assert [decoder.uniform(7), decoder.uniform(2**31), decoder.gamma(), decoder.golomb(9)] == [0, 0, 0, 0]
    assert decoder.choices(5, _shares([[1, 2, 3]])[0]).tolist() == [0] * 5


def test_a_stream_is_pinned() -> None:
    """These bytes must never change."""
    row = _shares([[5, 3, 1]])
    symbols = np.array([0, 1, 2, 0], dtype=np.int32)
    calls: list[Call] = [
        ("uniform", 200, (256,)),
        ("uniform", 123456789, (2**31,)),
        ("gamma", 1000, ()),
        ("signed", -3, ()),
        ("golomb", 77, (4,)),
        ("choices", symbols, (row[0],)),
        ("choices_each", symbols[:1], (row,)),
    ]
    assert _encode(calls).hex(" ", 4) == "9ab70ec8 75ae5b2a 686a0ade"


def test_what_is_certain_takes_no_bytes() -> None:
    """A choice among one, no symbols, and no calls at all."""
    one = np.array([TOTAL], dtype=np.int64)
    symbols = np.zeros(9, dtype=np.int32)
    calls: list[Call] = [
        ("uniform", 0, (1,)),
        ("choices", symbols, (one,)),
        ("choices_each", symbols[:0], (one[None][:0],)),
    ]
    assert _encode(calls) == b""
    assert ParameterDecoder(b"").choices(9, one).tolist() == [0] * 9


def test_small_numbers_are_cheap() -> None:
    """Gamma takes a bit for 0, three for 1 and 2, and no more than 62 for any."""
    costs = []
    for value in (0, 1, 2, 3, 2**31 - 2, 2**31 - 1):
        counter = BitCounter()
        counter.gamma(value)
        costs.append(math.floor(counter.bits))
    assert costs == [1, 3, 3, 5, 61, 62]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_stream_of_other_than_whole_words_is_refused(size: int) -> None:
    """Before anything is read."""
    with pytest.raises(FormatError, match="multiple of 4"):
        ParameterDecoder(bytes(size))


def test_numbers_beyond_their_range_are_refused_by_the_reader() -> None:
    """What no writer makes, though the coder could."""
    digits = _encode([("uniform", 16, (17,)), ("uniform", 65535, (2**16,))])
    with pytest.raises(FormatError, match="below 1048577"):
        ParameterDecoder(digits).uniform(2**20 + 1)
    ones = _encode([("uniform", 1, (2,))] * 31 + [("uniform", 5, (2**31,))])
    with pytest.raises(FormatError, match=r"below 2\*\*31"):
        ParameterDecoder(ones).gamma()
    high = _encode([("gamma", 2**20, ()), ("uniform", 0, (2**20,))])
    with pytest.raises(FormatError, match=r"below 2\*\*31"):
        ParameterDecoder(high).golomb(20)


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.uniform(3, 3),
        lambda writer: writer.uniform(0, 2**31 + 1),
        lambda writer: writer.gamma(-1),
        lambda writer: writer.gamma(2**31),
        lambda writer: writer.signed(2**30),
        lambda writer: writer.choices(np.array([3], dtype=np.int32), _shares([[1, 1, 1]])[0]),
        lambda writer: writer.choices(np.array([0], dtype=np.int32), np.array([1, 2])),
        lambda writer: writer.choices(np.array([0], dtype=np.int32), np.array([TOTAL, 0])),
        lambda writer: writer.choices_each(np.array([0], dtype=np.int32), _shares([[1, 1], [1, 1]])),
    ],
)
def test_a_callers_mistake_is_a_value_error(call: Callable[[ParameterWriter], None]) -> None:
    """Numbers out of range, and frequencies that are none."""
    with pytest.raises(ValueError, match="expected"):
        call(ParameterEncoder())
