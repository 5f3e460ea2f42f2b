"""The CPU backend: buffers and layouts around the compiled functions of the modules `cpu_*`.

Everything runs on the calling thread, and all but the shortest calls release the interpreter's lock; the codec gives
each of its threads lanes of its own, so that threads never wait for each other inside the model.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.allocator import keep_freed_memory
from llmzip.exact import cpu_attention, cpu_coding, cpu_layers, cpu_products, cpu_rows, cpu_selection, tables
from llmzip.exact.backend import Cache, Floats, RunModel, Segments, Sizes
from llmzip.exact.cpu_fused import FusedModel, HoldsAddresses, as_floats, cache_row, hash_shift, supports
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix, Rows
from llmzip.exact.products import COLUMNS
from llmzip.exact.spec import ModelSpec

_LOG = logging.getLogger(__name__)
_KINDS = {"silu": 0, "gelu_tanh": 1, "gelu": 2, "relu2": 3}
_NO_FLOATS = np.empty(0, dtype=np.float32)
_NO_ROWS = np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class PackedMatrix:
    """A `QuantisedMatrix` in the layout of the products: int8 `[N / 16, K / 2, 16, 2]`."""

    packed: NDArray[np.int8]
    scale: Floats
    bias: Floats
    limit: int
    n_columns: int

    @functools.cached_property
    def wide(self) -> bool:
        """Whether a sum of products may leave int32."""
        return bool(self.limit * ONE_LIMB * 2 * self.packed.shape[1] >= 2**31)


class LoadedTables(NamedTuple):
    """All n-gram tables of a model: int8 `[T, rows, D / T]` and their scales `[T, rows]`."""

    q: NDArray[np.int8]
    scale: Floats


class CpuCache(HoldsAddresses, Cache):
    """Keys and values of `n_lanes` lanes, int8, laid out as the right operands of two products."""

    def __init__(self, spec: ModelSpec, n_lanes: int, capacity: int) -> None:
        padded = _round_up(capacity, COLUMNS)
        super().__init__(n_lanes, capacity)
        heads = (spec.n_layers, n_lanes, spec.n_kv_heads)
        width = _round_up(spec.head_width, COLUMNS)
        self.keys = np.zeros((*heads, padded // COLUMNS, width // 2, COLUMNS, 2), dtype=np.int8)
        self.values = np.zeros((*heads, width // COLUMNS, padded // 2, COLUMNS, 2), dtype=np.int8)
        self.key_scale = np.zeros((*heads, padded), dtype=np.float32)
        self.value_scale = np.zeros((*heads, padded), dtype=np.float32)
        layers = zip(self.keys, self.key_scale, self.values, self.value_scale, strict=True)
        self.addresses = np.array([cache_row(layer, padded) for layer in layers], dtype=np.int64)


class SelectiveCpuCache(HoldsAddresses, Cache):
    """Keys and values of lanes under selective attention: slots, as many a layer as its budget allows.

    For each layer a tuple of keys, their scales, values, their scales, F and positions of the slots
    (int32 `[lanes, S]`), and the number of slots in use (int32 `[lanes]`).
    """

    def __init__(self, spec: ModelSpec, n_lanes: int, capacity: int) -> None:
        if spec.selection is None:
            raise ValueError("expected the spec of a selective model")
        super().__init__(n_lanes, capacity)
        self.selection = spec.selection
        budgets = [spec.selection.budget(layer) or capacity for layer in range(spec.n_layers)]
        self.n_slots = [min(budget, capacity) for budget in budgets]
        self.layers = [self._layer(spec, n_slots) for n_slots in self.n_slots]
        rows = zip(self.layers, self.n_slots, strict=True)
        self.addresses = np.array([cache_row(layer, n_slots) for layer, n_slots in rows], dtype=np.int64)

    def _layer(self, spec: ModelSpec, n_slots: int) -> tuple[NDArray[Any], ...]:
        padded = _round_up(n_slots, COLUMNS)
        heads = (self.n_lanes, spec.n_kv_heads)
        width = _round_up(spec.head_width, COLUMNS)
        return (
            np.zeros((*heads, padded // COLUMNS, width // 2, COLUMNS, 2), dtype=np.int8),
            np.zeros((*heads, padded), dtype=np.float32),
            np.zeros((*heads, width // COLUMNS, padded // 2, COLUMNS, 2), dtype=np.int8),
            np.zeros((*heads, padded), dtype=np.float32),
            np.full((self.n_lanes, padded), self.selection.cutoff, dtype=np.int32),
            np.zeros((self.n_lanes, padded), dtype=np.int32),
            np.zeros(self.n_lanes, dtype=np.int32),
        )


class CpuBackend:
    """See `llmzip.exact.backend.Backend`."""

    name = "cpu"
    # 126 rows are 21 tiles of six and keep a layer's activations in a cache of 1 MB; more rows do not make the products
    # faster. So many logits fit into it too.
    sizes = Sizes(rows=126, outputs=1 << 20, windows=1)
    needs_proof = False

    def __init__(self) -> None:
        keep_freed_memory()
        if not _is_compiled():
            _LOG.info("compiling for this machine, which takes half a minute and is done once")

    def load(self, matrix: QuantisedMatrix) -> PackedMatrix:
        n_columns, n_terms = matrix.q.shape
        packed = np.empty((-(-n_columns // COLUMNS), -(-n_terms // 2), COLUMNS, 2), dtype=np.int8)
        cpu_products.pack_matrix(np.ascontiguousarray(matrix.q), packed)
        bias = _NO_FLOATS if matrix.bias is None else as_floats(matrix.bias)
        return PackedMatrix(packed, as_floats(matrix.scale), bias, matrix.limit, n_columns)

    def load_tables(self, tables: Sequence[QuantisedMatrix]) -> LoadedTables:
        return LoadedTables(np.stack([table.q for table in tables]), np.stack([table.scale for table in tables]))

    def embed_runs(self, x: Floats, tables: LoadedTables, runs: NDArray[np.int64]) -> Floats:
        y = np.empty_like(x)
        cpu_rows.embed_runs(x, tables.q, tables.scale, runs, hash_shift(tables.q.shape[1]), y)
        return y

    def quantise_rows(self, x: Floats, limit: int) -> Rows:
        rows = _new_rows(x, limit)
        cpu_rows.quantise_rows(x, np.float32(limit), rows.q, rows.scale)
        return rows

    def linear(self, rows: Rows, matrix: PackedMatrix, residual: Floats | None = None) -> Floats:
        y = np.empty((len(rows.q), matrix.n_columns), dtype=np.float32)
        added = _NO_ROWS if residual is None else residual
        cpu_products.linear(rows.q, rows.scale, matrix.wide, matrix.packed, matrix.scale, matrix.bias, added, y)
        return y

    def norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        y = np.empty_like(x)
        cpu_rows.norm(x, weight, _NO_FLOATS if bias is None else bias, np.float32(eps), bias is not None, y)
        return y

    def norm_rows(self, x: Floats, weight: Floats, bias: Floats | None, eps: float, limit: int) -> Rows:
        rows = _new_rows(x, limit)
        shift = _NO_FLOATS if bias is None else bias
        cpu_rows.norm_rows(x, weight, shift, np.float32(eps), bias is not None, np.float32(limit), rows.q, rows.scale)
        return rows

    def rotate(self, x: Floats, head_width: int, cos: Floats, sin: Floats, positions: NDArray[np.int32]) -> Floats:
        cpu_rows.rotate(x, head_width, cos, sin, positions)
        return x

    def activate(self, kind: str, gate: Floats, up: Floats | None) -> Floats:
        y = np.empty_like(gate)
        normal = tables.normal_table() if kind == "gelu" else tables.NO_NORMAL
        cpu_rows.activate(_KINDS[kind], gate, gate if up is None else up, up is not None, normal, y)
        return y

    def activate_rows(self, kind: str, gate: Floats, up: Floats | None, limit: int) -> Rows:
        rows = _new_rows(gate, limit)
        normal = tables.normal_table() if kind == "gelu" else tables.NO_NORMAL
        cpu_rows.activate_rows(
            _KINDS[kind],
            gate,
            gate if up is None else up,
            up is not None,
            normal,
            np.float32(limit),
            rows.q,
            rows.scale,
        )
        return rows

    def new_cache(self, spec: ModelSpec, n_lanes: int, capacity: int) -> CpuCache | SelectiveCpuCache:
        return (SelectiveCpuCache if spec.selection else CpuCache)(spec, n_lanes, capacity)

    def write_cache(self, cache: CpuCache, layer: int, segments: Segments, k: Floats, v: Floats) -> None:
        heads = (len(k), cache.keys.shape[2], -1)
        cpu_attention.write_keys(k.reshape(heads), segments, cache.keys[layer], cache.key_scale[layer])
        cpu_attention.write_values(v.reshape(heads), segments, cache.values[layer], cache.value_scale[layer])

    def attention(
        self, cache: CpuCache, layer: int, segments: Segments, q: Floats, scale: float, window: int
    ) -> Floats:
        n_rows, n_heads, _ = q.shape
        rows = _quantise_queries(q, cache.keys.shape[4])
        y = np.empty_like(q)
        cpu_attention.attention(
            rows.q.reshape(n_rows, n_heads, -1),
            rows.scale.reshape(n_rows, n_heads),
            segments,
            cache.keys[layer],
            cache.key_scale[layer],
            cache.values[layer],
            cache.value_scale[layer],
            np.float32(scale),
            window,
            y,
        )
        return y

    def selective_attention(
        self, cache: SelectiveCpuCache, layer: int, segments: Segments, q: Floats, k: Floats, v: Floats, scale: float
    ) -> Floats:
        n_rows, n_heads, width = q.shape
        rows = _quantise_queries(q, cache.layers[layer][0].shape[3])
        keys, key_scale, values, value_scale, forgotten, places, used = cache.layers[layer]
        y = np.empty_like(q)
        cpu_selection.selective_attention(
            rows.q.reshape(n_rows, n_heads, -1),
            rows.scale.reshape(n_rows, n_heads) * np.float32(scale),
            k.reshape(n_rows, -1, width),
            v.reshape(n_rows, -1, width),
            segments,
            keys,
            key_scale,
            values,
            value_scale,
            forgotten,
            places,
            used,
            cache.n_slots[layer],
            np.int32(cache.selection.cutoff),
            cache.selection.protect_first,
            cache.selection.mask_self,
            y,
        )
        return y

    def fuse(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, PackedMatrix],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        embedding: QuantisedMatrix,
        ngrams: LoadedTables | None,
    ) -> RunModel | None:
        if not supports(spec):
            return None
        normal = tables.normal_table() if spec.activation == "gelu" else tables.NO_NORMAL
        return FusedModel(spec, matrices, vectors, rotation, embedding, ngrams, _KINDS[spec.activation], normal)

    def predict(self, hidden: Floats, matrix: PackedMatrix, bucket_size: int) -> tuple[NDArray[np.int32], Floats]:
        weights = np.empty((len(hidden), matrix.n_columns), dtype=np.int32)
        buckets = np.empty((len(hidden), bucket_size), dtype=np.float32)
        packed = (matrix.packed, matrix.scale, matrix.bias)
        cpu_coding.predict(hidden, np.float32(matrix.limit), matrix.wide, *packed, bucket_size, weights, buckets)
        return weights, buckets

    def member_frequencies(self, weights: NDArray[np.int32], buckets: NDArray[np.int32], bucket_size: int) -> Floats:
        y = np.empty((len(weights), bucket_size), dtype=np.float32)
        cpu_coding.member_frequencies(weights, buckets, bucket_size, y)
        return y


def _new_rows(x: Floats, limit: int) -> Rows:
    """Room for rows of `x`, their width rounded up to even."""
    return Rows(np.empty((len(x), _round_up(x.shape[1], 2)), np.int16), np.empty(len(x), np.float32), limit)


def _quantise_queries(q: Floats, n_pairs: int) -> Rows:
    """Queries `[R, H, K]` as rows `[R * H, 2 * n_pairs]`, zeros beyond their width."""
    n_rows, n_heads, width = q.shape
    n = n_rows * n_heads
    rows = Rows(np.empty((n, 2 * n_pairs), np.int16), np.empty(n, np.float32), ONE_LIMB)
    cpu_rows.quantise_rows(q.reshape(-1, width), np.float32(ONE_LIMB), rows.q, rows.scale)
    return rows


def _is_compiled() -> bool:
    """Whether an earlier process has left what the longest of the compilations makes."""
    return any(Path(cpu_layers.run_model.stats.cache_path).glob("cpu_layers.run_model-*.nbi"))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
