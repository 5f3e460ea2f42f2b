"""Makes ready what `cpu_layers` runs: a model and its caches as tables of addresses.

One call instead of some hundred operations saves the interpreter a tenth of a millisecond a step, and threads as many
handovers of its lock, each of which costs more than a small operation. Left to `Transformer`: norms of queries and
keys, norms after a block, and local layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.exact import tables
from llmzip.exact.backend import Floats, Segments
from llmzip.exact.cpu_layers import N_SLOTS, NORMS, PARTS, Rules, Shape, run_model
from llmzip.exact.matrix import QuantisedMatrix
from llmzip.exact.spec import ModelSpec

# Integers and their scales, a scale a row.
Lookup = tuple[NDArray[np.int8], Floats]


def supports(spec: ModelSpec) -> bool:
    """Whether the model of `spec` can run here."""
    return not (spec.qk_norm or spec.sandwich_norms or spec.local_layers)


class HoldsAddresses:
    """Refuses to be copied or pickled: the addresses of a copy would still be those of the first one's arrays."""

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(f"{type(self).__name__} holds addresses of its arrays: make a new one instead of a copy")


class FusedModel(HoldsAddresses):
    """One model.

    Args:
        spec: the transformer; `supports` must hold.
        matrices: packed, by name.
        vectors: by name.
        rotation: cosines and sines of all positions, or None.
        embedding: of the tokens.
        ngrams: integers and scales of all n-gram tables, or None.
        activation: its number in `cpu_rows`.
        normal: table of the normal distribution function, or empty.
    """

    def __init__(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, Any],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        embedding: QuantisedMatrix,
        ngrams: tuple[NDArray[np.int8], Floats] | None,
        activation: int,
        normal: Floats,
    ) -> None:
        # Addresses do not keep arrays alive, and say nothing of their layout.
        self._matrices = dict(matrices)
        self._vectors = {name: as_floats(vectors[name]) for name in _vector_names(spec)}
        self._embedding = _lookup(embedding.q, embedding.scale)
        self._ngrams = _lookup(*ngrams) if ngrams else None
        rows = [_weight_row(spec, f"layers.{layer}.", matrices, self._vectors) for layer in range(spec.n_layers)]
        self._weights = np.array(rows, dtype=np.int64)
        self._ends = np.array(_ends(spec, self._embedding, self._ngrams, self._vectors), dtype=np.int64)
        self._cos, self._sin = rotation or (tables.NO_ANGLES, tables.NO_ANGLES)
        self._normal = normal
        self._shape = _shape(spec, activation)
        # Of a type of its own where there is none, so that only one kind of attention is compiled.
        chosen = spec.selection
        self._selection = chosen and Rules(chosen.cutoff, chosen.protect_first, chosen.mask_self)

    def __call__(
        self, cache: Any, segments: Segments, tokens: NDArray[np.int32], positions: NDArray[np.int32], prefix: Floats
    ) -> Floats:
        """Rows `[R, D]` after the last norm, by the addresses that the cache has of itself."""
        y: Floats = run_model(
            self._shape,
            self._selection,
            self._ends,
            self._weights,
            cache.addresses,
            cache.tokens,
            cache.shifts,
            cache.steered,
            self._normal,
            self._cos,
            self._sin,
            segments,
            tokens,
            positions,
            prefix,
        )
        return y


def as_floats(array: NDArray[Any]) -> Floats:
    """The array as code reads it that has its address alone: float32, element after element, aligned."""
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def cache_row(arrays: tuple[NDArray[Any], ...], n_slots: int) -> list[int]:
    """A row of a cache's table: keys, scales, values, scales, and under selection F, positions, slots in use."""
    addresses = [array.ctypes.data for array in arrays]
    return addresses + [0] * (N_SLOTS - len(addresses)) + [n_slots, arrays[1].shape[2]]


def _shape(spec: ModelSpec, activation: int) -> Shape:
    return Shape(
        spec.width,
        spec.bos_id,
        np.float32(spec.embedding_scale),
        spec.n_heads,
        spec.n_kv_heads,
        spec.head_width,
        spec.ff_width,
        spec.mlp == "gated",
        spec.norm == "layer",
        spec.parallel_residual,
        activation,
        np.float32(spec.norm_eps),
        np.float32(spec.attention_scale),
    )


def _vector_names(spec: ModelSpec) -> list[str]:
    names = [f"layers.{layer}.{norm}" for layer in range(spec.n_layers) for norm in NORMS] + ["final_norm"]
    return names + [f"{name}.bias" for name in names] * (spec.norm == "layer") + ["positions"] * spec.learned_positions


def _lookup(q: NDArray[np.int8], scale: Floats) -> Lookup:
    """Rows that are only looked up, as code reads them that has their address alone."""
    return np.require(q, np.int8, ["C_CONTIGUOUS"]), as_floats(scale)


def _ends(spec: ModelSpec, embedding: Lookup, ngrams: Lookup | None, vectors: Mapping[str, Floats]) -> list[int]:
    """What `cpu_layers` is told of what stands before and after the layers."""
    row = _lookup_numbers(embedding) + (_lookup_numbers(ngrams) if ngrams else [0, 0, 0])
    row += [spec.ngrams.tables, hash_shift(spec.ngrams.rows)] if spec.ngrams else [0, 0]
    learned = vectors.get("positions")
    row += [0, 0] if learned is None else [learned.ctypes.data, len(learned)]
    return row + _norm_numbers(vectors, "final_norm")


def hash_shift(n_rows: int) -> int:
    """How far a hash of 32 bits is shifted to be the row of a table."""
    return 33 - n_rows.bit_length()


def _lookup_numbers(lookup: Lookup) -> list[int]:
    q, scale = lookup
    return [q.ctypes.data, scale.ctypes.data, q.shape[-2]]


def _norm_numbers(vectors: Mapping[str, Floats], name: str) -> list[int]:
    bias = vectors.get(f"{name}.bias")
    return [vectors[name].ctypes.data, 0 if bias is None else bias.ctypes.data]


def _weight_row(spec: ModelSpec, prefix: str, matrices: Mapping[str, Any], vectors: Mapping[str, Floats]) -> list[int]:
    row: list[int] = []
    for part in PARTS:
        absent = part == "gate" and spec.mlp == "plain"
        row += [0] * 7 if absent else _matrix_numbers(matrices[prefix + part])
    for name in NORMS:
        row += _norm_numbers(vectors, prefix + name)
    return row


def _matrix_numbers(matrix: Any) -> list[int]:
    bias = matrix.bias.ctypes.data if len(matrix.bias) else 0
    addresses = [matrix.packed.ctypes.data, matrix.scale.ctypes.data, bias]
    return [*addresses, matrix.n_columns, matrix.packed.shape[1], matrix.limit, int(matrix.wide)]
