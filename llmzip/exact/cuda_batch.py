"""What rows a model is run for, told to a GPU in one copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from llmzip.exact.backend import Segments
from llmzip.exact.cuda_cache import CudaCache
from llmzip_kernels.attention import cut, rows_together
from llmzip_kernels.launching import to_device

Ids = NDArray[np.int32]


class Rows(NamedTuple):
    """Rows as `Transformer` gives them: segments `[n, 4]`, tokens and positions `[R]`."""

    segments: Segments
    tokens: Ids
    positions: Ids

    @property
    def step(self) -> bool:
        """Whether each segment is one row."""
        return len(self.segments) == len(self.tokens)

    def filled_up(self, n_rows: int, lane: int) -> Rows:
        """So many rows: those of a step, then rows of a lane that nobody reads."""
        n = len(self.tokens)
        segments = np.empty((n_rows, 4), dtype=np.int32)
        segments[:n], segments[n:] = self.segments, (lane, 0, 1, 0)
        segments[:, 1] = np.arange(n_rows)
        tokens, positions = (np.concatenate([ids, np.zeros(n_rows - n, np.int32)]) for ids in self[1:])
        return Rows(segments, tokens, positions)

    def shifted(self, cache: CudaCache) -> bool:
        """Whether a row's lane is steered."""
        lanes = self.segments[:, 0]
        return bool(cache.steered[lanes[lanes < cache.n_lanes]].any())


class Batch(NamedTuple):
    """Rows on the device; all tensors int32.

    Attributes:
        lanes: of each row `[R]`.
        positions: of each row.
        tokens: of each row.
        firsts: the first row of its segment.
        steered: whether its lane is.
        own: 0 .. R - 1.
        zeros: R times.
        tiles: segments as attention takes them, `[n, 4]`.
        step: whether each segment is one row.
        shifted: whether any row is steered.
    """

    lanes: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor
    firsts: torch.Tensor
    steered: torch.Tensor
    own: torch.Tensor
    zeros: torch.Tensor
    tiles: torch.Tensor
    step: bool
    shifted: bool


def pack(cache: CudaCache, rows: Rows, *, selective: bool) -> Ids:
    """All numbers of a batch, one after the other."""
    segments = rows.segments
    lanes, firsts = (np.repeat(segments[:, column], segments[:, 2]) for column in (0, 1))
    steered = np.append(cache.steered, False)[lanes]
    own = np.arange(len(lanes), dtype=np.int32)
    tiles = _live(cache, segments) if selective else cut(segments, rows_together(cache.heads, step=rows.step))
    columns = [lanes, rows.positions, rows.tokens, firsts, steered, own, np.zeros_like(own)]
    return np.concatenate([*columns, tiles.reshape(-1)]).astype(np.int32)


def _live(cache: CudaCache, segments: Segments) -> Segments:
    """Segments, without rows where nobody reads the lane: programs that change one lane must not run side by side."""
    segments = segments.copy()
    segments[segments[:, 0] == cache.n_lanes, 2] = 0
    return segments


def unpack(packed: torch.Tensor, n_rows: int, *, step: bool, shifted: bool) -> Batch:
    """A batch from its numbers on the device."""
    lanes, positions, tokens, firsts, steered, own, zeros = packed[: 7 * n_rows].reshape(7, n_rows)
    tiles = packed[7 * n_rows :].reshape(-1, 4)
    return Batch(lanes, positions, tokens, firsts, steered, own, zeros, tiles, step, shifted)


def to_batch(cache: CudaCache, rows: Rows, *, selective: bool) -> Batch:
    """Copy rows to the device."""
    packed = to_device(pack(cache, rows, selective=selective))
    return unpack(packed, len(rows.tokens), step=rows.step, shifted=rows.shifted(cache))
