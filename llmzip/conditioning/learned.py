"""The learned hyperprior: a normal distribution of its own for each coordinate, which a network gives.

Some coordinates of a steering row vary much more than others, and together they do so in ways that few numbers tell.
The network of a model knows both; a writer adds the numbers, the latents, that make the row cheapest. Source: Ballé et
al., arXiv:1802.01436, with means and with a linear synthesis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.hyperpriors import Coordinates
from llmzip.conditioning.network import ID_SIZE, HyperpriorNetwork
from llmzip.conditioning.network_file import find_network
from llmzip.conditioning.normal import MAX_RADIUS, nearest_code, normal_rows, step_of
from llmzip.conditioning.registry import Hyperprior, Integers, Symbols, read_number, register
from llmzip.entropy import BitCounter, ParameterDecoder, ParameterWriter
from llmzip.errors import ConfigError, FormatError

Floats = NDArray[np.float32]

# Frequencies that are in memory together; what is written does not depend on it.
_CELLS = 1 << 18
# How often the latents are gone through, at most.
_ROUNDS = 8


def write_network_id(writer: ParameterWriter, network: HyperpriorNetwork) -> None:
    """Write the 4 bytes that name a network."""
    for byte in network.id:
        writer.uniform(byte, 256)


def read_network_id(decoder: ParameterDecoder) -> HyperpriorNetwork:
    """The network that is named.

    Raises:
        ConditionerMissingError: it is not on this machine.
    """
    return find_network(bytes(decoder.uniform(256) for _ in range(ID_SIZE)))


@register
@dataclass(frozen=True)
class Learned(Hyperprior):
    """The numbers -radius to radius, each coordinate under its own normal distribution.

    Args:
        network: of the model.
        part: the row, 0 to P - 1.
        radius: 0 to 2047. With 0 there is one level, and latents and coordinates cost nothing.
        latents: k of them, each -U to U; all 0 if the radius is 0.
    """

    kind: ClassVar[int] = 3
    name: ClassVar[str] = "learned"
    network: HyperpriorNetwork
    part: int
    radius: int
    latents: tuple[int, ...]

    @property
    def levels(self) -> Integers:
        """-radius to radius."""
        return np.arange(-self.radius, self.radius + 1, dtype=np.int64)

    def write(self, writer: ParameterWriter) -> None:
        """Write the network's id, the row, the radius and, if it is not 0, the latents."""
        write_network_id(writer, self.network)
        writer.uniform(self.part, self.network.n_parts)
        self.write_row(writer)

    def write_row(self, writer: ParameterWriter) -> None:
        """Write the radius and the latents, where network and row are known."""
        writer.gamma(self.radius)
        self.write_latents(writer)

    def write_latents(self, writer: ParameterWriter) -> None:
        """Write the latents alone, unless the radius is 0."""
        if self.radius:
            symbols = np.array(self.latents, dtype=np.int32) + np.int32(self.network.latent_radius)
            writer.choices_each(symbols, self.network.latent_frequencies(self.part))

    @classmethod
    def read(cls, decoder: ParameterDecoder, n: int) -> Self:
        """Read what `write` wrote.

        Raises:
            FormatError: the network has rows of another length than `n`, or no writer makes this payload.
            ConditionerMissingError: the network is not on this machine.
        """
        network = read_network_id(decoder)
        if n != network.width:
            raise FormatError(f"learned: expected {network.width} coordinates, found {n}", need=network.width, have=n)
        return cls.read_row(decoder, network, decoder.uniform(network.n_parts))

    @classmethod
    def read_row(cls, decoder: ParameterDecoder, network: HyperpriorNetwork, part: int) -> Self:
        """Read what `write_row` wrote."""
        radius = read_number(decoder, "radius", MAX_RADIUS)
        if not radius:
            return cls(network, part, 0, (0,) * network.n_latents)
        symbols = decoder.choices_each(network.n_latents, network.latent_frequencies(part))
        return cls(network, part, radius, tuple((symbols - network.latent_radius).tolist()))

    def write_symbols(self, writer: ParameterWriter, symbols: Symbols) -> None:
        """Write the level of each coordinate, int32 `[D]`."""
        for part, rows in self._frequencies():
            writer.choices_each(symbols[part], rows)

    def read_symbols(self, decoder: ParameterDecoder, n: int) -> Symbols:
        """Read the levels of `n` coordinates, int32 `[n]`, n being D."""
        symbols = np.zeros(n, dtype=np.int32)
        for part, rows in self._frequencies():
            symbols[part] = decoder.choices_each(len(rows), rows)
        return symbols

    def bits(self, symbols: Symbols) -> float:
        """What latents and coordinates cost."""
        counter = BitCounter()
        self.write_latents(counter)
        self.write_symbols(counter, symbols)
        return counter.bits

    @classmethod
    def fit(cls, network: HyperpriorNetwork, part: int, numbers: Integers) -> Self:
        """The cheapest for given numbers, int64 `[D]`, each -2047 to 2047: all values of one latent after the other."""
        radius = int(np.abs(numbers).max())
        best = cls(network, part, radius, (0,) * network.n_latents)
        if radius == 0 or network.n_latents == 0:
            return best
        symbols = (numbers + radius).astype(np.int32)
        least = best.bits(symbols)
        for _ in range(_ROUNDS):
            before = least
            for candidate in (other for j in range(network.n_latents) for other in best._others(j)):
                # The others of a latent differ from `best` in it alone, also after an earlier one has become the best.
                if (bits := candidate.bits(symbols)) < least:
                    best, least = candidate, bits
            if least == before:
                break
        return best

    def _others(self, j: int) -> Iterator[Self]:
        U = self.network.latent_radius
        for value in range(-U, U + 1):
            if value != self.latents[j]:
                yield replace(self, latents=(*self.latents[:j], value, *self.latents[j + 1 :]))

    def _frequencies(self) -> Iterator[tuple[slice, Integers]]:
        """Frequencies of the levels of some coordinates after the other, int64 `[n, 2 * radius + 1]`."""
        network, latents = self.network, np.array(self.latents, dtype=np.int64)
        codes = network.scale_codes(self.part, latents)
        sigmas = 16 + codes % 16 << codes // 16
        means = network.row_means(self.part, latents, self.radius)
        n_levels = 2 * self.radius + 1
        n_rows = max(1, _CELLS // n_levels)
        for first in range(0, len(codes), n_rows):
            part = slice(first, first + n_rows)
            yield part, normal_rows(sigmas[part], means[part], -self.radius, n_levels)


def quantise_learned(values: Floats, part: int, network: HyperpriorNetwork, step: float | None = None) -> Coordinates:
    """Give every value of a steering row a level.

    Args:
        values: finite, float32 `[D]`.
        part: which row it is.
        network: of the model.
        step: distance of levels; the nearest that `step_of` knows is taken. Without it, that which the network was
            trained with; others fit its scales and means less, which are in steps.

    Raises:
        ConfigError: another number of values, values that are not finite, or more than 2047 steps from 0.
    """
    if values.shape != (network.width,) or not np.isfinite(values).all():
        raise ConfigError(f"learned: expected {network.width} finite values, found the shape {values.shape}")
    if not 0 <= part < network.n_parts:
        raise ConfigError(f"learned: expected a row of 0 to {network.n_parts - 1}, found {part}")
    if step is not None and not 0 < step < np.inf:
        raise ConfigError(f"learned: expected a positive step, found {step}")
    step_code = int(network.step_codes[part]) if step is None else nearest_code(step)
    numbers = np.rint(values.astype(np.float64) / float(step_of(step_code)))
    if np.abs(numbers).max() > MAX_RADIUS:
        raise ConfigError(f"learned: expected at most {MAX_RADIUS} steps from 0, found {np.abs(numbers).max():.0f}")
    whole = numbers.astype(np.int64)
    hyperprior = Learned.fit(network, part, whole)
    return Coordinates(hyperprior, (whole + hyperprior.radius).astype(np.int32), step_code)
