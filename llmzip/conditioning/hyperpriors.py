"""Coordinates: numbers as levels and a step, with the hyperprior under which they are coded.

Which hyperpriors there are: `gaussian`, `empirical` and `lloyd_max` define one each, `registry` says what one is.
A writer chooses levels and parameters with floats as it likes; what a reader computes is integers, and one product
of float32 a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.empirical import Empirical
from llmzip.conditioning.gaussian import Gaussian
from llmzip.conditioning.lloyd_max import LloydMax
from llmzip.conditioning.normal import MAX_LEVELS, N_STEPS, nearest_code, step_of
from llmzip.conditioning.registry import Hyperprior, SharedHyperprior, Symbols, read_kind, write_kind
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterWriter
from llmzip.errors import ConfigError, FormatError, LimitError

Floats = NDArray[np.float32]
Kind = Literal["gaussian", "empirical", "lloyd-max"]

MAX_COORDINATES = 1_000_000

_BY_NAME: dict[str, type[SharedHyperprior]] = {kind.name: kind for kind in (Gaussian, Empirical, LloydMax)}


@dataclass(frozen=True)
class Cost:
    """Bits of a group of coordinates, -log2(frequency / 2**24) of every choice that is written.

    Args:
        header_bits: which hyperprior, and the step.
        parameter_bits: the hyperprior's parameters.
        coordinate_bits: the levels of the coordinates.
    """

    header_bits: float
    parameter_bits: float
    coordinate_bits: float

    @property
    def metadata_bits(self) -> float:
        """All but the coordinates."""
        return self.header_bits + self.parameter_bits

    @property
    def total_bits(self) -> float:
        """Everything."""
        return self.metadata_bits + self.coordinate_bits


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A group of quantised numbers.

    Args:
        hyperprior: levels and their distribution.
        symbols: the level of each coordinate, int32 `[N]`, each 0 to n_levels - 1, N up to 1,000,000.
        step_code: code of the step, 0 to 255.
    """

    hyperprior: Hyperprior
    symbols: Symbols
    step_code: int

    def integers(self) -> NDArray[np.int32]:
        """The whole number of each coordinate, int32 `[N]`."""
        return self.hyperprior.levels[self.symbols].astype(np.int32)

    def values(self) -> Floats:
        """Each whole number times the step, float32 `[N]`, rounded once."""
        values: Floats = self.integers().astype(np.float32) * step_of(self.step_code)
        return values

    def write(self, writer: ParameterWriter) -> None:
        """Write all but N."""
        self._write_header(writer)
        self.hyperprior.write(writer)
        self.hyperprior.write_symbols(writer, self.symbols)

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int, *, shared: bool = False) -> Self:
        """Read `n` coordinates that `write` wrote.

        Args:
            decoder: of the stream.
            n: how many.
            shared: all have the same distribution; a hyperprior that looks for a network is refused.

        Raises:
            LimitError: `n` above 1,000,000.
            FormatError: no writer makes this payload.
        """
        if n > MAX_COORDINATES:
            raise LimitError(f"coordinates: expected at most {MAX_COORDINATES}, found {n}", have=n)
        hyperprior_class = read_kind(decoder)
        if shared and not issubclass(hyperprior_class, SharedHyperprior):
            raise FormatError(f"hyperprior: expected one that names no network, found {hyperprior_class.name}")
        step_code = decoder.uniform(N_STEPS)
        hyperprior = hyperprior_class.read(decoder, n)
        return cls(hyperprior, hyperprior.read_symbols(decoder, n), step_code)

    def cost(self) -> Cost:
        """What `write` writes, in bits."""
        header, parameters, coordinates = BitCounter(), BitCounter(), BitCounter()
        self._write_header(header)
        self.hyperprior.write(parameters)
        self.hyperprior.write_symbols(coordinates, self.symbols)
        return Cost(header.bits, parameters.bits, coordinates.bits)

    def _write_header(self, writer: ParameterWriter) -> None:
        write_kind(writer, self.hyperprior)
        writer.uniform(self.step_code, N_STEPS)


def quantise(values: Floats, kind: Kind, n_levels: int | None = None, step: float | None = None) -> Coordinates:
    """Give every value a level.

    Args:
        values: finite, float32 `[N]`, N up to 1,000,000.
        kind: the hyperprior.
        n_levels: the most levels, 1 to 4096. The Gaussian one has an odd number of them; Lloyd-Max needs it.
        step: distance of levels, for Lloyd-Max of the grid they lie on; the nearest that `step_of` knows is taken.
            Without it, one is chosen that suits the levels.

    Raises:
        ConfigError: values that are not finite or too many, neither levels nor step, or values that do not fit both.
    """
    if values.ndim != 1 or len(values) > MAX_COORDINATES:
        raise ConfigError(f"coordinates: expected a row of at most {MAX_COORDINATES}, found the shape {values.shape}")
    if not np.isfinite(values).all():
        raise ConfigError("coordinates: expected finite values, found NaN or infinity")
    if n_levels is None and step is None:
        raise ConfigError("coordinates: expected a number of levels or a step, found neither")
    if n_levels is not None and not 1 <= n_levels <= MAX_LEVELS:
        raise ConfigError(f"coordinates: expected 1 to {MAX_LEVELS} levels, found {n_levels}")
    if step is not None and not 0 < step < np.inf:
        raise ConfigError(f"coordinates: expected a positive step, found {step}")
    step_code = None if step is None else nearest_code(step)
    return Coordinates(*_BY_NAME[kind].quantise(values.astype(np.float64), n_levels, step_code))
