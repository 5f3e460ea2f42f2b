# ruff: noqa: TID253
"""What held-out steering rows cost under each hyperprior, at the same distortion; imports torch, loaded lazily.

Each row is rounded to the same step under all hyperpriors but Lloyd-Max, which gets the fewest levels whose squared
error is not greater. All are coded as an archive codes them, all parameters included: as entries of a set, of which
each row names its network, and as vectors of chunks, whose set names it for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.gaussian import Gaussian, bits_under
from llmzip.conditioning.hyperpriors import Coordinates, quantise
from llmzip.conditioning.learned import Learned, quantise_learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.normal import step_of
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.entropy import BitCounter, ParameterEncoder
from llmzip_training.hyperprior import HyperpriorModel

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]
# Where vectors stand: in a set, or in chunks.
ENTRY, CHUNK = "total_bits_per_coordinate", "chunk_bits_per_coordinate"


@dataclass(frozen=True)
class Coded:
    """Vectors under one hyperprior: coordinates of each row of each vector."""

    rows: list[list[Coordinates]]

    def report(self, vectors: Floats) -> dict[str, float]:
        """Bits a coordinate, by what they are for, and the mean squared error."""
        costs = [row.cost() for vector in self.rows for row in vector]
        latents = [_latent_bits(row) for vector in self.rows for row in vector]
        parts = {
            "coordinates": sum(cost.coordinate_bits for cost in costs),
            "latents": sum(latents),
            "metadata": sum(cost.metadata_bits for cost in costs) - sum(latents),
        }
        found = {f"{name}_bits_per_coordinate": bits / vectors.size for name, bits in parts.items()}
        found[ENTRY] = sum(cost.total_bits for cost in costs) / vectors.size
        return found | {"mean_squared_error": float(np.mean((self.values() - vectors).astype(np.float64) ** 2))}

    def values(self) -> Floats:
        """What a decoder gets, `[N, P, D]`."""
        return np.stack([np.stack([row.values() for row in vector]) for vector in self.rows])

    def bytes_of(self) -> int:
        """Of one stream of everything."""
        encoder = ParameterEncoder()
        for vector in self.rows:
            for row in vector:
                row.write(encoder)
        return len(encoder.finish())

    def total_bits(self) -> float:
        """Of everything."""
        return sum(row.cost().total_bits for vector in self.rows for row in vector)


def code_shared(vectors: Floats, step_codes: Sequence[int]) -> dict[str, Coded]:
    """Vectors `[N, P, D]` under the hyperpriors that are fitted to each row."""
    steps = [float(step_of(code)) for code in step_codes]
    gaussian, empirical = (
        Coded([[quantise(row, kind, step=step) for row, step in zip(one, steps, strict=True)] for one in vectors])
        for kind in ("gaussian", "empirical")
    )
    lloyd_max = Coded(
        [
            [_as_exact(row, other) for row, other in zip(one, others, strict=True)]
            for one, others in zip(vectors, gaussian.rows, strict=True)
        ]
    )
    return {"gaussian": gaussian, "empirical": empirical, "lloyd-max": lloyd_max}


def code_learned(vectors: Floats, network: HyperpriorNetwork, texts: Sequence[Tokens]) -> Coded:
    """Vectors `[N, P, D]` under a network, each as the text before it moves the network."""
    given = [network.given(text) for text in texts]
    return Coded(
        [
            [quantise_learned(row, part, one) for part, row in enumerate(vector)]
            for vector, one in zip(vectors, given, strict=True)
        ]
    )


def chunk_bits(coded: Coded, network: HyperpriorNetwork | None) -> float:
    """Bits a coordinate of vectors that chunks bring, where their set names the network."""
    first = coded.rows[0]
    chunk_vectors = ChunkVectors(Shape(0, len(first), len(first[0].symbols)), network)
    bits = sum(chunk_vectors.bits(Vectors(chunk_vectors.shape, tuple(vector))) for vector in coded.rows)
    return bits / (len(coded.rows) * chunk_vectors.shape.n_coordinates)


def check_estimate(coded: Coded, model: HyperpriorModel, features: torch.Tensor) -> dict[str, float]:
    """Bytes of latents and coordinates as they are coded, and what the float model says of the same numbers.

    Args:
        coded: vectors.
        model: that was learned.
        features: of the text before each vector.
    """
    encoder = ParameterEncoder()
    for row in (row for vector in coded.rows for row in vector):
        assert isinstance(row.hyperprior, Learned)
        row.hyperprior.write_latents(encoder)
        row.hyperprior.write_symbols(encoder, row.symbols)
    real = len(encoder.finish())
    R_y, R_u = _estimate(coded, model, features)
    return {"R_y_bits": R_y, "R_u_bits": R_u, "estimated_bytes": (R_y + R_u) / 8, "coded_bytes": real}


def fixed_gaussian_bits(train: torch.Tensor, held_out: torch.Tensor) -> dict[str, float]:
    """What rows `[N, P, D]` cost under one normal distribution a row of the matrix, fitted to all training vectors."""
    bits = 0.0
    for seen, unseen in zip(_by_row(train), _by_row(held_out), strict=True):
        radius = int(np.abs(unseen).max())
        counts = np.bincount(unseen + radius, minlength=2 * radius + 1)
        bits += bits_under(counts, Gaussian(radius, Gaussian.fit(seen).sigma_code).frequencies())
    return {"coordinates_bits_per_coordinate": bits / held_out.numel()}


def text_report(before: float, after: float, costs: dict[str, dict[str, float]], n: int) -> dict[str, Any]:
    """Bits of the held-out pieces without matrices, and with them under each hyperprior, all bits counted.

    Args:
        before: bits of the pieces without.
        after: and with them.
        costs: bits a coordinate under each hyperprior.
        n: coordinates of all matrices.
    """
    facts: dict[str, Any] = {"bits_without": before, "bits_with": after, "gain_bits": before - after}
    for place in (ENTRY, CHUNK):
        facts[place] = {name: after + n * cost[place] for name, cost in costs.items() if place in cost}
    return facts


def _by_row(levels: torch.Tensor) -> list[NDArray[np.int64]]:
    return [row.cpu().numpy().astype(np.int64).reshape(-1) for row in levels.unbind(dim=1)]


@torch.no_grad()
def _estimate(coded: Coded, model: HyperpriorModel, features: torch.Tensor) -> tuple[float, float]:
    """R_y and R_u of the float model; rows of zeros alone cost nothing, as when they are coded."""
    levels = torch.from_numpy(np.array([[row.integers() for row in vector] for vector in coded.rows])).float()
    levels = levels.to(model.means.device)
    if model.source == "text":
        latents = model.latents(levels, features)
    else:
        hyperpriors = [[row.hyperprior for row in vector] for vector in coded.rows]
        whole = torch.tensor([[h.latents for h in row if isinstance(h, Learned)] for row in hyperpriors])
        latents = whole.float().to(levels.device)
    written = (levels != 0).any(dim=2)
    R_y = (model.coordinate_bits(levels, latents) * written).sum().item()
    return R_y, (model.latent_bits(latents) * written).sum().item()


def _latent_bits(row: Coordinates) -> float:
    counter = BitCounter()
    if isinstance(row.hyperprior, Learned):
        row.hyperprior.write_latents(counter)
    return counter.bits


def _as_exact(row: Floats, other: Coordinates) -> Coordinates:
    """A row under the fewest Lloyd-Max levels that err no more than others do, found by halving."""
    limit = _squared_error(row, other)
    too_few, enough = 0, len(np.unique(row))
    best = quantise(row, "lloyd-max", n_levels=enough)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = quantise(row, "lloyd-max", n_levels=middle)
        if _squared_error(row, found) <= limit:
            best, enough = found, middle
        else:
            too_few = middle
    return best


def _squared_error(row: Floats, coordinates: Coordinates) -> float:
    return float(np.sum((row - coordinates.values()).astype(np.float64) ** 2))
