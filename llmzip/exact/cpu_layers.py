"""A transformer from its tokens to its last norm in one compiled call.

The operations are those of the other modules `cpu_*` in the order of `Transformer`, which remains the definition.
Weights and caches come as addresses in tables of integers, a row for each layer, so that one compilation serves
every depth; `cpu_fused` makes the tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from llmzip.exact.cpu_attention import attention, write_keys, write_values
from llmzip.exact.cpu_products import compiled, linear
from llmzip.exact.cpu_rows import activate_rows, embed, embed_runs, find_runs, norm, norm_rows, quantise_rows, rotate
from llmzip.exact.cpu_rows import shift as add_shift
from llmzip.exact.cpu_selection import selective_attention
from llmzip.exact.matrix import ONE_LIMB
from llmzip.exact.products import COLUMNS

# The columns of a row of weights. For each matrix seven numbers: addresses of packed columns, scales and bias,
# columns, pairs of terms, limit, wide; then the addresses of weight and bias of two norms.
PARTS = ("q", "k", "v", "o", "gate", "up", "down")
NORMS = ("attention_norm", "mlp_norm")
_Q, _K, _V, _O, _GATE, _UP, _DOWN = range(0, 49, 7)
_SCALE, _BIAS, _N_COLUMNS, _N_PAIRS, _LIMIT, _WIDE = range(1, 7)
_ATTENTION_NORM, _MLP_NORM = 49, 51
# Those of a row of a cache, whose F, positions and slots in use are selective attention's.
_KEYS, _KEY_SCALE, _VALUES, _VALUE_SCALE, _FORGOTTEN, _PLACES, _USED, N_SLOTS, _N_PADDED = range(9)
# And what stands before and after the layers. Of the embedding and of the n-gram tables the addresses of integers and
# scales, and the rows; how many tables, and how far hashes are shifted; address and rows of learned positions;
# addresses of weight and bias of the last norm.
_EMBED, _TABLES, _N_TABLES, _HASH_SHIFT, _LEARNED, _FINAL_NORM = 0, 3, 6, 7, 8, 10
_N_ROWS = 2

# Part of `run_model`, compiled with it and not for itself as well.
_inlined = numba.njit(inline="always", error_model="numpy")


class Shape(NamedTuple):
    """What is the same in all layers."""

    width: int
    bos_id: int
    embedding_scale: np.float32
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


class Rules(NamedTuple):
    """Of selective attention."""

    cutoff: int
    protect_first: bool
    mask_self: bool


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_typing_context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@compiled
def run_model(  # type: ignore[no-untyped-def]
    shape, rules, ends, weights, caches, lane_tokens, shifts, steered, normal, cos, sin, segments, tokens, positions,
    prefix,
):  # fmt: skip
    """Rows `[R, D]` after the last norm; a row of `weights` and of `caches` for each layer.

    Those of a cache: lane_tokens int32 `[lanes, S]`, shifts float32 `[lanes, L + 1, D]`, steered bool `[lanes]`.
    segments int32 `[n, 4]`; tokens and positions int32 `[R]`; prefix float32 `[P, D]`.
    """
    x = _embed(shape, ends, lane_tokens, segments, tokens, positions, prefix)
    n_lanes, n_layers = lane_tokens.shape[0], weights.shape[0]
    for layer in range(n_layers):
        w = weights[layer]
        add_shift(shifts, steered, layer, segments, x)
        between = _attention_block(shape, rules, w, caches[layer], n_lanes, cos, sin, segments, positions, x)
        x = _mlp_block(shape, w, normal, x if shape.parallel else between, between)
    add_shift(shifts, steered, n_layers, segments, x)
    y = np.empty_like(x)
    weight = _floats(ends[_FINAL_NORM], shape.width)
    bias = _floats(ends[_FINAL_NORM + 1], shape.width if shape.layer_norm else 0)
    norm(x, weight, bias, shape.eps, shape.layer_norm, y)
    return y


@_inlined
def _embed(shape, ends, lane_tokens, segments, tokens, positions, prefix):  # type: ignore[no-untyped-def]
    """The residual stream before the first layer."""
    n_rows, width, n_tokens = tokens.shape[0], shape.width, ends[_EMBED + _N_ROWS]
    q = carray(_pointer(ends[_EMBED]), (n_tokens, width), np.int8)
    scale = _floats(ends[_EMBED + _SCALE], n_tokens)
    learned = carray(_pointer(ends[_LEARNED]), (ends[_LEARNED + 1], width), np.float32)
    x = np.empty((n_rows, width), np.float32)
    embed(tokens, positions, q, scale, shape.embedding_scale, prefix, learned, x)
    n_tables, table_rows = ends[_N_TABLES], ends[_TABLES + _N_ROWS]
    if n_tables:
        table_q = carray(_pointer(ends[_TABLES]), (n_tables, table_rows, width // n_tables), np.int8)
        table_scale = carray(_pointer(ends[_TABLES + _SCALE]), (n_tables, table_rows), np.float32)
        runs = np.empty((n_rows, n_tables + 1), np.int64)
        find_runs(lane_tokens, segments, tokens, n_tokens, shape.bos_id, runs)
        embed_runs(x, table_q, table_scale, runs, ends[_HASH_SHIFT], x)
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
            cache[N_SLOTS], np.int32(rules.cutoff), rules.protect_first, rules.mask_self, y,
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
