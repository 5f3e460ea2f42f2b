"""What a hyperprior is, and which there are: the distributions under which coordinates are coded."""

from __future__ import annotations

import abc
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmzip.entropy import ParameterDecoder, ParameterWriter
from llmzip.errors import FormatError

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Symbols = NDArray[np.int32]

MAX_KINDS = 4
MAX_INTEGER = 1 << 24


class Hyperprior(abc.ABC):
    """Levels of coordinates, and a distribution over them, with all parameters that a reader needs.

    A level is a whole number of at most 2**24 in magnitude; times the step it is a coordinate's value.
    """

    kind: ClassVar[int]
    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def levels(self) -> Integers:
        """The whole number of each level, ascending, int64 `[n_levels]`, 1 to 4096 of them."""

    @abc.abstractmethod
    def write(self, writer: ParameterWriter) -> None:
        """Write the parameters."""

    @classmethod
    @abc.abstractmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:
        """Read the parameters of a hyperprior for `n` coordinates.

        Raises:
            FormatError: no such parameters can be.
        """

    @abc.abstractmethod
    def write_symbols(self, writer: ParameterWriter, symbols: Symbols) -> None:
        """Write the level of each coordinate, int32 `[N]`."""

    @abc.abstractmethod
    def read_symbols(self, decoder: ParameterDecoder, n: int) -> Symbols:
        """Read the levels of `n` coordinates, int32 `[n]`."""


class SharedHyperprior(Hyperprior):
    """A hyperprior under which all coordinates have the same distribution."""

    @abc.abstractmethod
    def frequencies(self) -> Integers:
        """How probable each level is, int64 `[n_levels]`, each at least 1, sum 2**24."""

    @classmethod
    @abc.abstractmethod
    def quantise(cls, values: Doubles, n_levels: int | None, step_code: int | None) -> tuple[Self, Symbols, int]:
        """Fit to values: the hyperprior, a level for each value, and the code of the step.

        Args:
            values: finite, float64 `[N]`.
            n_levels: at most so many levels, or None.
            step_code: 0 to 255, or None: then the class chooses a step that suits `n_levels`.

        Raises:
            ConfigError: the values do not fit the levels.
        """

    def write_symbols(self, writer: ParameterWriter, symbols: Symbols) -> None:
        """Write the level of each coordinate, int32 `[N]`."""
        writer.choices(symbols, self.frequencies())

    def read_symbols(self, decoder: ParameterDecoder, n: int) -> Symbols:
        """Read the levels of `n` coordinates, int32 `[n]`."""
        return decoder.choices(n, self.frequencies())


_Kind = TypeVar("_Kind", bound=type[Hyperprior])

_KINDS: dict[int, type[Hyperprior]] = {}


def register(hyperprior: _Kind) -> _Kind:
    """Make a class known to readers, under its `kind`; a decorator."""
    assert 0 <= hyperprior.kind < MAX_KINDS
    assert hyperprior.kind not in _KINDS
    _KINDS[hyperprior.kind] = hyperprior
    return hyperprior


def write_kind(writer: ParameterWriter, hyperprior: Hyperprior) -> None:
    """Write which class a hyperprior has."""
    writer.uniform(hyperprior.kind, MAX_KINDS)


def read_kind(decoder: ParameterDecoder) -> type[Hyperprior]:
    """Read which class a hyperprior has.

    Raises:
        FormatError: none that this reader knows.
    """
    kind = decoder.uniform(MAX_KINDS)
    if kind not in _KINDS:
        raise FormatError(f"hyperprior: expected a kind of {sorted(_KINDS)}, found {kind}", have=kind)
    return _KINDS[kind]


def read_number(decoder: ParameterDecoder, name: str, limit: int) -> int:
    """Read a number that `gamma` wrote and that is at most `limit`."""
    value = decoder.gamma()
    if value > limit:
        raise FormatError(f"{name}: expected at most {limit}, found {value}", field=name, need=limit, have=value)
    return value


def check_level(level: int) -> int:
    """Give back the number of a level that was read.

    Raises:
        FormatError: a coordinate could not be that number times the step with one rounding.
    """
    if abs(level) > MAX_INTEGER:
        raise FormatError(f"level: expected at most 2**24 in magnitude, found {level}", field="level", have=level)
    return level
