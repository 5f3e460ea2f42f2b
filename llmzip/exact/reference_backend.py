"""The reference as a backend, so that a whole model can be compared with any other backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmzip.exact import reference
from llmzip.exact.backend import Cache, Floats, Segments, Sizes
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix, Rows
from llmzip.exact.spec import ModelSpec


class ReferenceCache(Cache):
    """Quantised keys and values, `[layers, lanes, Hk, S, K]` with a scale a head and position."""

    def __init__(self, spec: ModelSpec, n_lanes: int, capacity: int) -> None:
        super().__init__(n_lanes, capacity)
        heads = (spec.n_layers, n_lanes, spec.n_kv_heads, capacity)
        self.keys = Rows(np.zeros((*heads, spec.head_width), np.int16), np.zeros(heads, np.float32), ONE_LIMB)
        self.values = Rows(np.zeros((*heads, spec.head_width), np.int16), np.zeros(heads, np.float32), ONE_LIMB)


class SelectiveReferenceCache(ReferenceCache):
    """As `ReferenceCache`, with F `[layers, lanes, S]` and which keys are still seen."""

    def __init__(self, spec: ModelSpec, n_lanes: int, capacity: int) -> None:
        super().__init__(spec, n_lanes, capacity)
        if spec.selection is None:
            raise ValueError("expected the spec of a selective model")
        self.selection = spec.selection
        self.forgotten = np.zeros((spec.n_layers, n_lanes, capacity), np.int64)
        self.seen = np.zeros((spec.n_layers, n_lanes, capacity), dtype=bool)

    def admit(self, layer: int, lane: int, position: int) -> None:
        """Make room for a new key where the layer's budget asks for it, and begin to see it."""
        seen, forgotten = self.seen[layer, lane], self.forgotten[layer, lane]
        budget = self.selection.budget(layer)
        if position == 0:
            seen[:] = False
        if budget and seen.sum() >= budget:
            positions = np.flatnonzero(seen)
            seen[positions[reference.least_needed(forgotten[positions], positions)]] = False
        seen[position], forgotten[position] = True, 0

    def forget(self, layer: int, lane: int, positions: NDArray[np.int64], forgotten: NDArray[np.int64]) -> None:
        """Take the new F of the keys at `positions`; those at the cutoff are seen no more."""
        self.forgotten[layer, lane, positions] = forgotten
        self.seen[layer, lane, positions] = forgotten < self.selection.cutoff


class ReferenceBackend:
    """See `llmzip.exact.backend.Backend`."""

    name = "reference"
    sizes = Sizes(rows=126, outputs=1 << 20, windows=1)
    needs_proof = False

    def load(self, matrix: QuantisedMatrix) -> QuantisedMatrix:
        return matrix

    def load_tables(self, tables: Sequence[QuantisedMatrix]) -> Sequence[QuantisedMatrix]:
        return tables

    def embed_runs(self, x: Floats, tables: Sequence[QuantisedMatrix], runs: NDArray[np.int64]) -> Floats:
        return reference.embed_runs(x, tables, runs)

    def quantise_rows(self, x: Floats, limit: int) -> Rows:
        return reference.quantise_rows(x, limit)

    def linear(self, rows: Rows, matrix: QuantisedMatrix, residual: Floats | None = None) -> Floats:
        y = reference.linear(rows, matrix)
        return y if residual is None else residual + y

    def norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        if bias is None:
            return reference.rms_norm(x, weight, eps)
        return reference.layer_norm(x, weight, bias, eps)

    def norm_rows(self, x: Floats, weight: Floats, bias: Floats | None, eps: float, limit: int) -> Rows:
        return reference.quantise_rows(self.norm(x, weight, bias, eps), limit)

    def rotate(self, x: Floats, head_width: int, cos: Floats, sin: Floats, positions: NDArray[np.int32]) -> Floats:
        heads = x.reshape(len(x), -1, head_width)
        return reference.rotate(heads, cos[positions], sin[positions]).reshape(x.shape)

    def activate(self, kind: str, gate: Floats, up: Floats | None) -> Floats:
        y = reference.ACTIVATIONS[kind](gate)
        return y if up is None else y * up

    def activate_rows(self, kind: str, gate: Floats, up: Floats | None, limit: int) -> Rows:
        return reference.quantise_rows(self.activate(kind, gate, up), limit)

    def new_cache(self, spec: ModelSpec, n_lanes: int, capacity: int) -> ReferenceCache:
        return (SelectiveReferenceCache if spec.selection else ReferenceCache)(spec, n_lanes, capacity)

    def write_cache(self, cache: ReferenceCache, layer: int, segments: Segments, k: Floats, v: Floats) -> None:
        n_heads = cache.keys.q.shape[2]
        for x, rows in ((k, cache.keys), (v, cache.values)):
            for head, heads in enumerate(np.split(x.reshape(len(x), n_heads, -1), n_heads, axis=1)):
                quantised = reference.quantise_rows(heads[:, 0], ONE_LIMB)
                for lane, row, n_rows, position in segments:
                    rows.q[layer, lane, head, position : position + n_rows] = quantised.q[row : row + n_rows]
                    rows.scale[layer, lane, head, position : position + n_rows] = quantised.scale[row : row + n_rows]

    def attention(
        self, cache: ReferenceCache, layer: int, segments: Segments, q: Floats, scale: float, window: int
    ) -> Floats:
        y = np.empty_like(q)
        n_kv_heads = cache.keys.q.shape[2]
        group = q.shape[1] // n_kv_heads
        for lane, row, n_rows, position in segments:
            for head in range(n_kv_heads):
                keys, values = (
                    Rows(rows.q[layer, lane, head], rows.scale[layer, lane, head], ONE_LIMB)
                    for rows in (cache.keys, cache.values)
                )
                heads = slice(head * group, (head + 1) * group)
                for i in range(n_rows):
                    y[row + i, heads] = reference.attention(
                        q[row + i, heads], keys, values, position + i, scale, window
                    )
        return y

    def selective_attention(
        self,
        cache: SelectiveReferenceCache,
        layer: int,
        segments: Segments,
        q: Floats,
        k: Floats,
        v: Floats,
        scale: float,
    ) -> Floats:
        self.write_cache(cache, layer, segments, k, v)
        y = np.empty_like(q)
        for lane, row, n_rows, first in segments:
            for i in range(n_rows):
                y[row + i] = _attend_selectively(cache, layer, lane, first + i, q[row + i], scale)
        return y

    def fuse(self, *_model: object) -> None:
        return None

    def predict(self, hidden: Floats, matrix: QuantisedMatrix, bucket_size: int) -> tuple[NDArray[np.int32], Floats]:
        weights = reference.output_weights(self.linear(self.quantise_rows(hidden, matrix.limit), matrix))
        return weights, reference.frequencies(_buckets(weights, bucket_size).sum(axis=2)).astype(np.float32)

    def member_frequencies(self, weights: NDArray[np.int32], buckets: NDArray[np.int32], bucket_size: int) -> Floats:
        chosen = _buckets(weights, bucket_size)[np.arange(len(weights)), buckets]
        return reference.frequencies(chosen).astype(np.float32)


def _attend_selectively(
    cache: SelectiveReferenceCache, layer: int, lane: int, position: int, q: Floats, scale: float
) -> Floats:
    """One query row `[H, K]` of every head, over the keys that its layer still sees."""
    cache.admit(layer, lane, position)
    positions = np.flatnonzero(cache.seen[layer, lane])
    forgotten = cache.forgotten[layer, lane, positions]
    y = np.empty_like(q)
    n_kv_heads = cache.keys.q.shape[2]
    group = len(q) // n_kv_heads
    for head in range(n_kv_heads):
        keys, values = (
            Rows(rows.q[layer, lane, head, positions], rows.scale[layer, lane, head, positions], ONE_LIMB)
            for rows in (cache.keys, cache.values)
        )
        heads = slice(head * group, (head + 1) * group)
        scores = reference.attention_scores(q[heads], keys, scale)
        y[heads] = reference.mix_values(reference.forget(scores, forgotten), values)
        if head == 0:
            selecting = scores[0]
    cache.forget(layer, lane, positions, reference.select(selecting, forgotten, positions, position, cache.selection))
    return y


def _buckets(weights: NDArray[np.int32], bucket_size: int) -> NDArray[np.int64]:
    padded = np.zeros((len(weights), bucket_size * bucket_size), dtype=np.int64)
    padded[:, : weights.shape[1]] = weights
    return padded.reshape(len(weights), bucket_size, bucket_size)
