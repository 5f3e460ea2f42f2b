"""Whole numbers to bytes and back, under frequencies that both sides hold: parameters, levels, coordinates.

The coder and its words are those of tokens (SPEC.md, section 9.3). This module decides how a number becomes
choices; what the numbers mean, and which frequencies suit them, is left to whoever writes them.

A stream is written by a `ParameterEncoder` and read by a `ParameterDecoder` that makes the same calls in the same
order. A `BitCounter` takes the writer's calls too and counts what they cost.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import FormatError

Symbols = NDArray[np.int32]
Integers = NDArray[np.int64]

MAX_CHOICES = 4096
MAX_NUMBER = 2**31 - 1

_TOTAL_BITS = 24
_TOTAL = 1 << _TOTAL_BITS
_DIGIT_BITS = 16
_MAX_UNIFORM = 1 << 20


class ParameterWriter(abc.ABC):
    """The calls of a writer: two kinds of choices, and numbers that are made of them."""

    def uniform(self, value: int, n: int) -> None:
        """Write one of `n` equally likely numbers.

        Up to 2**20 it is one choice, of which each number has the frequency `2**24 // n` and the last also what
        remains; a choice among one writes nothing. Above, it is `value // 2**16` among those possible, then
        `value % 2**16` among 2**16.

        Args:
            value: 0 to n - 1.
            n: 1 to 2**31.
        """
        if not 0 <= value < n <= MAX_NUMBER + 1:
            raise ValueError(f"uniform: expected a number below {n}, and that at most 2**31, found {value}")
        if n > _MAX_UNIFORM:
            self.uniform(value >> _DIGIT_BITS, _high_digits(n))
            self._uniform(value & (1 << _DIGIT_BITS) - 1, 1 << _DIGIT_BITS)
        elif n > 1:
            self._uniform(value, n)

    def gamma(self, value: int) -> None:
        """Write a number of any size, in 2 * log2(value + 1) + 1 bits.

        With L the bits of value + 1: L - 1 times a one, then a zero (which is left out for L = 32), each a uniform
        choice of two; then value + 1 without its highest bit, uniformly among 2**(L - 1).

        Args:
            value: 0 to 2**31 - 1.
        """
        if not 0 <= value <= MAX_NUMBER:
            raise ValueError(f"gamma: expected 0 to 2**31 - 1, found {value}")
        more = (value + 1).bit_length() - 1
        for _ in range(more):
            self._uniform(1, 2)
        if more < 31:
            self._uniform(0, 2)
        self.uniform(value + 1 - (1 << more), 1 << more)

    def signed(self, value: int) -> None:
        """Write a number of either sign: 2 * value, or -2 * value - 1 below 0, by `gamma`.

        Args:
            value: -2**30 to 2**30 - 1.
        """
        self.gamma(2 * value if value >= 0 else -2 * value - 1)

    def golomb(self, value: int, order: int) -> None:
        """Write a number that is probably below 2**order: its higher part by `gamma`, then the lowest bits uniformly.

        Args:
            value: 0 to 2**31 - 1.
            order: 0 to 30.
        """
        self.gamma(value >> order)
        self.uniform(value & (1 << order) - 1, 1 << order)

    def choices(self, symbols: Symbols, frequencies: Integers) -> None:
        """Write symbols that share their frequencies; a choice among one writes nothing.

        Args:
            symbols: int32 `[N]`, each from 0 to n - 1.
            frequencies: int64 `[n]`, n from 1 to 4096, each at least 1, sum 2**24.
        """
        _check_frequencies(frequencies[None])
        _check_symbols(symbols, len(frequencies))
        if len(symbols) and len(frequencies) > 1:
            self._choices(symbols, frequencies)

    def choices_each(self, symbols: Symbols, frequencies: Integers) -> None:
        """Write symbols, each under its own row of `frequencies`, int64 `[N, n]`; otherwise as `choices`."""
        _check_frequencies(frequencies)
        _check_symbols(symbols, frequencies.shape[1])
        if symbols.shape != frequencies.shape[:1]:
            raise ValueError(f"choices_each: expected a symbol for each of {len(frequencies)} rows")
        if len(symbols) and frequencies.shape[1] > 1:
            self._choices_each(symbols, frequencies)

    @abc.abstractmethod
    def _uniform(self, value: int, n: int) -> None: ...

    @abc.abstractmethod
    def _choices(self, symbols: Symbols, frequencies: Integers) -> None: ...

    @abc.abstractmethod
    def _choices_each(self, symbols: Symbols, frequencies: Integers) -> None: ...


class ParameterEncoder(ParameterWriter):
    """Writes one stream of numbers."""

    def __init__(self) -> None:
        self._coder = _stream().queue.RangeEncoder()

    def finish(self) -> bytes:
        """The stream: 32-bit words, little-endian; none if nothing was written."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes()

    def _uniform(self, value: int, n: int) -> None:
        self._coder.encode(value, _uniform_model(n))

    def _choices(self, symbols: Symbols, frequencies: Integers) -> None:
        self._coder.encode(np.ascontiguousarray(symbols), _shared_model(frequencies))

    def _choices_each(self, symbols: Symbols, frequencies: Integers) -> None:
        self._coder.encode(np.ascontiguousarray(symbols), _model_of_rows(), _less_one(frequencies))


class BitCounter(ParameterWriter):
    """Takes what a `ParameterEncoder` takes, writes nothing, and sums -log2(frequency / 2**24) in `bits`."""

    def __init__(self) -> None:
        self.bits = 0.0

    def _uniform(self, value: int, n: int) -> None:
        frequency = _TOTAL // n
        if value == n - 1:
            frequency = _TOTAL - frequency * (n - 1)
        self.bits += _TOTAL_BITS - math.log2(frequency)

    def _choices(self, symbols: Symbols, frequencies: Integers) -> None:
        counts = np.bincount(symbols, minlength=len(frequencies))
        self.bits += float(counts @ (_TOTAL_BITS - np.log2(frequencies)))

    def _choices_each(self, symbols: Symbols, frequencies: Integers) -> None:
        own = frequencies[np.arange(len(symbols)), symbols]
        self.bits += float((_TOTAL_BITS - np.log2(own)).sum())


class ParameterDecoder:
    """Reads what a `ParameterEncoder` wrote, by the same calls in the same order.

    Beyond the end of the stream the coder reads words of zero, so any payload of whole words gives numbers within
    their ranges, or `FormatError`.
    """

    def __init__(self, payload: bytes) -> None:
        """Start at the stream's first number.

        Raises:
            FormatError: the payload is not a multiple of 4 bytes.
        """
        if len(payload) % 4:
            raise FormatError(f"parameters: expected a multiple of 4 bytes, found {len(payload)}")
        words = np.frombuffer(payload, dtype="<u4").astype(np.uint32)
        self._coder = _stream().queue.RangeDecoder(words)

    def uniform(self, n: int) -> int:
        """A number from 0 to n - 1, n from 1 to 2**31.

        Raises:
            FormatError: no writer makes this payload; so in all methods.
        """
        if not 1 <= n <= MAX_NUMBER + 1:
            raise ValueError(f"uniform: expected 1 to 2**31 numbers, found {n}")
        if n <= _MAX_UNIFORM:
            return int(self._decode(_uniform_model(n))) if n > 1 else 0
        value = (self.uniform(_high_digits(n)) << _DIGIT_BITS) + self.uniform(1 << _DIGIT_BITS)
        if value >= n:
            raise FormatError(f"parameters: expected a number below {n}, found {value}", need=n, have=value)
        return value

    def gamma(self) -> int:
        """A number from 0 to 2**31 - 1."""
        more = 0
        while more < 31 and self.uniform(2):
            more += 1
        value = (1 << more) - 1 + self.uniform(1 << more)
        if value > MAX_NUMBER:
            raise FormatError(f"parameters: expected a number below 2**31, found {value}", have=value)
        return value

    def signed(self) -> int:
        """A number from -2**30 to 2**30 - 1."""
        value = self.gamma()
        return -(value + 1) // 2 if value & 1 else value // 2

    def golomb(self, order: int) -> int:
        """A number from 0 to 2**31 - 1, of an order from 0 to 30."""
        high = self.gamma()
        value = (high << order) + self.uniform(1 << order)
        if value > MAX_NUMBER:
            raise FormatError(f"parameters: expected a number below 2**31, found {value}", have=value)
        return value

    def choices(self, n_symbols: int, frequencies: Integers) -> Symbols:
        """Symbols that share their frequencies, int32 `[n_symbols]`; `frequencies` as for the writer."""
        _check_frequencies(frequencies[None])
        if n_symbols == 0 or len(frequencies) == 1:
            return np.zeros(n_symbols, dtype=np.int32)
        symbols: Symbols = self._decode(_shared_model(frequencies), n_symbols)
        return symbols

    def choices_each(self, n_symbols: int, frequencies: Integers) -> Symbols:
        """Symbols under a row of frequencies each, int64 `[n_symbols, n]`; int32 `[n_symbols]`."""
        _check_frequencies(frequencies)
        if len(frequencies) != n_symbols:
            raise ValueError(f"choices_each: expected {n_symbols} rows, found {len(frequencies)}")
        if n_symbols == 0 or frequencies.shape[1] == 1:
            return np.zeros(n_symbols, dtype=np.int32)
        symbols: Symbols = self._decode(_model_of_rows(), _less_one(frequencies))
        return symbols

    def _decode(self, model: Any, *details: object) -> Any:
        try:
            return self._coder.decode(model, *details)
        except AssertionError as error:
            raise FormatError("parameters: expected words of the range coder, found none that fit") from error


def _high_digits(n: int) -> int:
    """How many values `value // 2**16` has for values below n."""
    return (n - 1 >> _DIGIT_BITS) + 1


def _check_frequencies(frequencies: Integers) -> None:
    n = frequencies.shape[1]
    if not 1 <= n <= MAX_CHOICES or (frequencies < 1).any() or (frequencies.sum(axis=1) != _TOTAL).any():
        raise ValueError(f"choices: expected up to {MAX_CHOICES} frequencies of at least 1 that sum to 2**24")


def _check_symbols(symbols: Symbols, n: int) -> None:
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < n:
        raise ValueError(f"choices: expected symbols from 0 to {n - 1}")


def _stream() -> Any:
    import constriction

    return constriction.stream


@functools.lru_cache(maxsize=64)
def _uniform_model(n: int) -> Any:
    return _stream().model.Uniform(n)


def _shared_model(frequencies: Integers) -> Any:
    return _stream().model.Categorical(_less_one(frequencies), perfect=False, lazy=False)


@functools.cache
def _model_of_rows() -> Any:
    return _stream().model.Categorical(perfect=False)


def _less_one(frequencies: Integers) -> NDArray[np.float32]:
    """What constriction is handed, see `token_coder`: it adds one to each of n numbers of the sum 2**24 - n."""
    return np.ascontiguousarray(frequencies - 1).astype(np.float32)
