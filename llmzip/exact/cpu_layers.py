"""All layers of a transformer in one compiled call, for the CPU backend.

The operations are those of the other modules `cpu_*` in the order of `Transformer`, which remains the definition;
this saves the interpreter some eighty calls a step, and threads as many handovers of its lock. Weights and caches
come as addresses in tables of integers, a row for each layer, so that one compilation serves every depth.

Left to `Transformer`: norms of queries and keys, norms after a block, and local layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from llmzip.exact.backend import Floats, Segments
from llmzip.exact.cpu_attention import attention, write_keys, write_values
from llmzip.exact.cpu_products import compiled, linear
from llmzip.exact.cpu_rows import activate_rows, norm_rows, quantise_rows, rotate
from llmzip.exact.cpu_selection import selective_attention
from llmzip.exact.matrix import ONE_LIMB
from llmzip.exact.products import COLUMNS
from llmzip.exact.spec import ModelSpec

# The columns of a row of weights. For each matrix seven numbers: addresses of packed columns, scales and bias,
# columns, pairs of terms, limit, wide; then the addresses of weight and bias of two norms.
_PARTS = ("q", "k", "v", "o", "gate", "up", "down")
_NORMS = ("attention_norm", "mlp_norm")
_Q, _K, _V, _O, _GATE, _UP, _DOWN = range(0, 49, 7)
_SCALE, _BIAS, _N_COLUMNS, _N_PAIRS, _LIMIT, _WIDE = range(1, 7)
_ATTENTION_NORM, _MLP_NORM = 49, 51
# And those of a row of a cache, whose F, positions and slots in use are selective attention's.
_KEYS, _KEY_SCALE, _VALUES, _VALUE_SCALE, _FORGOTTEN, _PLACES, _USED, _N_SLOTS, _N_PADDED = range(9)


# Part of `run_layers`, compiled with it and not for itself as well.
_inlined = numba.njit(inline="always", error_model="numpy")


class _Shape(NamedTuple):
    """What is the same in all layers."""

    n_heads: int
    n_kv_heads: int
    head_width: int
    ff_width: int
    gated: bool
    layer_norm: bool
    parallel: bool
    activation: int
    eps: np.float32
    attention_scale: np.float32


class _Rules(NamedTuple):
    """Of selective attention."""

    cutoff: int
    protect_first: bool
    mask_self: bool


def supports(spec: ModelSpec) -> bool:
    """Whether the layers of `spec` can run here."""
    return not (spec.qk_norm or spec.sandwich_norms or spec.local_layers)


class HoldsAddresses:
    """Refuses to be copied or pickled: the addresses of a copy would still be those of the first one's arrays."""

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(f"{type(self).__name__} holds addresses of its arrays: make a new one instead of a copy")


class CpuLayers(HoldsAddresses):
    """The layers of one model.

    Args:
        spec: the transformer; `supports` must hold.
        matrices: packed, by name.
        vectors: by name.
        rotation: cosines and sines of all positions, or None.
        activation: its number in `cpu_rows`.
        normal: table of the normal distribution function, or empty.
    """

    def __init__(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, Any],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        activation: int,
        normal: Floats,
    ) -> None:
        # Addresses do not keep arrays alive, and say nothing of their layout.
        self._matrices = dict(matrices)
        self._norms = {name: as_floats(vectors[name]) for name in _norm_names(spec)}
        rows = [_weight_row(spec, f"layers.{layer}.", matrices, self._norms) for layer in range(spec.n_layers)]
        self._weights = np.array(rows, dtype=np.int64)
        self._cos, self._sin = rotation or (np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32))
        self._normal = normal
        self._shape = _shape(spec, activation)
        # Of a type of its own where there is none, so that only one kind of attention is compiled.
        chosen = spec.selection
        self._selection = chosen and _Rules(chosen.cutoff, chosen.protect_first, chosen.mask_self)

    def __call__(self, cache: Any, segments: Segments, positions: NDArray[np.int32], x: Floats) -> Floats:
        """The residual stream `[R, D]` after all layers, by the addresses that the cache has of itself."""
        y: Floats = run_layers(
            self._shape,
            self._selection,
            self._weights,
            cache.addresses,
            cache.n_lanes,
            self._normal,
            self._cos,
            self._sin,
            segments,
            positions,
            x,
        )
        return y


def as_floats(array: NDArray[Any]) -> Floats:
    """The array as code reads it that has its address alone: float32, element after element, aligned."""
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def cache_row(arrays: tuple[NDArray[Any], ...], n_slots: int) -> list[int]:
    """A row of a cache's table: keys, scales, values, scales, and under selection F, positions, slots in use."""
    addresses = [array.ctypes.data for array in arrays]
    return addresses + [0] * (_N_SLOTS - len(addresses)) + [n_slots, arrays[1].shape[2]]


def _shape(spec: ModelSpec, activation: int) -> _Shape:
    return _Shape(
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


def _norm_names(spec: ModelSpec) -> list[str]:
    names = [f"layers.{layer}.{norm}" for layer in range(spec.n_layers) for norm in _NORMS]
    return names + [f"{name}.bias" for name in names] * (spec.norm == "layer")


def _weight_row(spec: ModelSpec, prefix: str, matrices: Mapping[str, Any], norms: Mapping[str, Floats]) -> list[int]:
    row: list[int] = []
    for part in _PARTS:
        absent = part == "gate" and spec.mlp == "plain"
        row += [0] * 7 if absent else _matrix_numbers(matrices[prefix + part])
    for name in _NORMS:
        bias = norms[f"{prefix}{name}.bias"].ctypes.data if spec.norm == "layer" else 0
        row += [norms[prefix + name].ctypes.data, bias]
    return row


def _matrix_numbers(matrix: Any) -> list[int]:
    bias = matrix.bias.ctypes.data if len(matrix.bias) else 0
    addresses = [matrix.packed.ctypes.data, matrix.scale.ctypes.data, bias]
    return [*addresses, matrix.n_columns, matrix.packed.shape[1], matrix.limit, int(matrix.wide)]


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_typing_context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@compiled
def run_layers(  # type: ignore[no-untyped-def]
    shape, rules, weights, caches, n_lanes, normal, cos, sin, segments, positions, x
):
    """The residual stream `[R, D]` after all layers; a row of `weights` and of `caches` each."""
    for layer in range(weights.shape[0]):
        w = weights[layer]
        between = _attention_block(shape, rules, w, caches[layer], n_lanes, cos, sin, segments, positions, x)
        x = _mlp_block(shape, w, normal, x if shape.parallel else between, between)
    return x


@_inlined
def _attention_block(shape, rules, w, cache, n_lanes, cos, sin, segments, positions, x):  # type: ignore[no-untyped-def]
    """The residual stream after attention."""
    n_rows, width = x.shape[0], shape.n_heads * shape.head_width
    rows, scale = _room(n_rows, x.shape[1])
    _norm_rows(shape, w[_ATTENTION_NORM:], x, w[_Q + _LIMIT], rows, scale)
    q = _product(w[_Q:], rows, scale, np.empty((0, 0), np.float32))
    if w[_K + _LIMIT] != w[_Q + _LIMIT]:
        _norm_rows(shape, w[_ATTENTION_NORM:], x, w[_K + _LIMIT], rows, scale)
    k = _product(w[_K:], rows, scale, np.empty((0, 0), np.float32))
    if w[_V + _LIMIT] != w[_K + _LIMIT]:
        _norm_rows(shape, w[_ATTENTION_NORM:], x, w[_V + _LIMIT], rows, scale)
    v = _product(w[_V:], rows, scale, np.empty((0, 0), np.float32))
    if cos.shape[1]:
        rotate(q, shape.head_width, cos, sin, positions)
        rotate(k, shape.head_width, cos, sin, positions)
    heads = q.reshape(n_rows, shape.n_heads, shape.head_width)
    keys = k.reshape(n_rows, shape.n_kv_heads, shape.head_width)
    values = v.reshape(n_rows, shape.n_kv_heads, shape.head_width)
    y = _attend(shape, rules, cache, n_lanes, segments, heads, keys, values)
    mixed, mixed_scale = _room(n_rows, width)
    quantise_rows(y.reshape(n_rows, width), np.float32(w[_O + _LIMIT]), mixed, mixed_scale)
    return _product(w[_O:], mixed, mixed_scale, x)


@_inlined
def _mlp_block(shape, w, normal, x, residual):  # type: ignore[no-untyped-def]
    """The residual stream after the MLP, whose input is `x`."""
    rows, scale = _room(x.shape[0], x.shape[1])
    _norm_rows(shape, w[_MLP_NORM:], x, w[_UP + _LIMIT], rows, scale)
    up = _product(w[_UP:], rows, scale, np.empty((0, 0), np.float32))
    gate = up
    if shape.gated:
        if w[_GATE + _LIMIT] != w[_UP + _LIMIT]:
            _norm_rows(shape, w[_MLP_NORM:], x, w[_GATE + _LIMIT], rows, scale)
        gate = _product(w[_GATE:], rows, scale, np.empty((0, 0), np.float32))
    active, active_scale = _room(x.shape[0], shape.ff_width)
    limit = np.float32(w[_DOWN + _LIMIT])
    activate_rows(shape.activation, gate, up, shape.gated, normal, limit, active, active_scale)
    return _product(w[_DOWN:], active, active_scale, residual)


@_inlined
def _attend(shape, rules, cache, n_lanes, segments, q, k, v):  # type: ignore[no-untyped-def]
    """Attention of one layer, plain or selective, over its row of a cache's table."""
    n_rows, n_heads, head_width = q.shape
    n_padded = cache[_N_PADDED]
    width = (head_width + COLUMNS - 1) // COLUMNS * COLUMNS
    lanes, slots = (n_lanes, shape.n_kv_heads), (n_lanes, n_padded)
    keys = carray(_pointer(cache[_KEYS]), (*lanes, n_padded // COLUMNS, width // 2, COLUMNS, 2), np.int8)
    values = carray(_pointer(cache[_VALUES]), (*lanes, width // COLUMNS, n_padded // 2, COLUMNS, 2), np.int8)
    key_scale = carray(_pointer(cache[_KEY_SCALE]), (*lanes, n_padded), np.float32)
    value_scale = carray(_pointer(cache[_VALUE_SCALE]), (*lanes, n_padded), np.float32)
    rows, scale = _room(n_rows * n_heads, width)
    quantise_rows(q.reshape(n_rows * n_heads, head_width), np.float32(ONE_LIMB), rows, scale)
    queries, query_scale = rows.reshape(n_rows, n_heads, width), scale.reshape(n_rows, n_heads)
    y = np.empty((n_rows, n_heads, head_width), np.float32)
    if rules is not None:
        scale *= shape.attention_scale
        forgotten = carray(_pointer(cache[_FORGOTTEN]), slots, np.int32)
        places = carray(_pointer(cache[_PLACES]), slots, np.int32)
        used = carray(_pointer(cache[_USED]), (n_lanes,), np.int32)
        selective_attention(
            queries, query_scale, k, v, segments, keys, key_scale, values, value_scale, forgotten, places, used,
            cache[_N_SLOTS], np.int32(rules.cutoff), rules.protect_first, rules.mask_self, y,
        )  # fmt: skip
    else:
        write_keys(k, segments, keys, key_scale)
        write_values(v, segments, values, value_scale)
        attention(
            queries, query_scale, segments, keys, key_scale, values, value_scale, shape.attention_scale, 0, y
        )  # fmt: skip
    return y


@compiled
def _norm_rows(shape, norm, x, limit, rows, scale):  # type: ignore[no-untyped-def]
    """`norm_rows` with the norm of two addresses."""
    weight = _floats(norm[0], x.shape[1])
    bias = _floats(norm[1], x.shape[1] if shape.layer_norm else 0)
    norm_rows(x, weight, bias, shape.eps, shape.layer_norm, np.float32(limit), rows, scale)


@compiled
def _product(matrix, rows, scale, residual):  # type: ignore[no-untyped-def]
    """`linear` with the matrix of seven numbers."""
    n_columns, n_bias = matrix[_N_COLUMNS], matrix[_N_COLUMNS] if matrix[_BIAS] else 0
    n_blocks = (n_columns + COLUMNS - 1) // COLUMNS
    packed = carray(_pointer(matrix[0]), (n_blocks, matrix[_N_PAIRS], COLUMNS, 2), np.int8)
    column_scale, bias = _floats(matrix[_SCALE], n_columns), _floats(matrix[_BIAS], n_bias)
    y = np.empty((rows.shape[0], n_columns), np.float32)
    linear(rows, scale, matrix[_WIDE] != 0, packed, column_scale, bias, residual, y)
    return y


@compiled
def _room(n_rows, width):  # type: ignore[no-untyped-def]
    """Room for quantised rows, their width rounded up to even, and for their scales."""
    return np.empty((n_rows, width + width % 2), np.int16), np.empty(n_rows, np.float32)


@compiled
def _floats(address, n):  # type: ignore[no-untyped-def]
    return carray(_pointer(address), (n,), np.float32)
