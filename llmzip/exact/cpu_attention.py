"""Attention over the lanes' quantised keys and values, compiled."""

from __future__ import annotations

import numpy as np

from llmzip.exact.cpu_products import compiled, products, scaled_products
from llmzip.exact.cpu_rows import exp_weights, find_greatest, quantise_row
from llmzip.exact.matrix import ATTENTION_LIMIT, ONE_LIMB
from llmzip.exact.products import COLUMNS, MAX_ROWS

_ATTENTION_LIMIT = np.float32(ATTENTION_LIMIT)


@compiled
def store_key(x, place, room, cache):  # type: ignore[no-untyped-def]
    """Quantise one key head `[K]` to its place in a lane's cache int8 `[S / 16, K / 2, 16, 2]`; returns the scale."""
    scale = quantise_row(x, np.float32(ONE_LIMB), room)
    block, column = divmod(place, COLUMNS)
    for k in range(x.shape[0]):
        cache[block, k >> 1, column, k & 1] = room[k]
    return scale


@compiled
def store_value(x, place, room, cache):  # type: ignore[no-untyped-def]
    """As `store_key`, for a value and a cache int8 `[K / 16, S / 2, 16, 2]`."""
    scale = quantise_row(x, np.float32(ONE_LIMB), room)
    pair, parity = divmod(place, 2)
    for k in range(x.shape[0]):
        cache[k // COLUMNS, pair, k % COLUMNS, parity] = room[k]
    return scale


@compiled
def write_keys(x, segments, cache, cache_scale):  # type: ignore[no-untyped-def]
    """Quantise key heads and store them at their positions.

    x float32 `[R, Hk, K]`; cache int8 `[lanes, Hk, S / 16, K / 2, 16, 2]`; scale `[lanes, Hk, S]`.
    """
    room = np.empty(x.shape[2], np.int16)
    for lane, row, n_rows, position in segments:
        for i in range(n_rows):
            for head in range(x.shape[1]):
                cache_scale[lane, head, position + i] = store_key(
                    x[row + i, head], position + i, room, cache[lane, head]
                )


@compiled
def write_values(x, segments, cache, cache_scale):  # type: ignore[no-untyped-def]
    """Quantise value heads and store them; cache int8 `[lanes, Hk, K / 16, S / 2, 16, 2]`."""
    room = np.empty(x.shape[2], np.int16)
    for lane, row, n_rows, position in segments:
        for i in range(n_rows):
            for head in range(x.shape[1]):
                cache_scale[lane, head, position + i] = store_value(
                    x[row + i, head], position + i, room, cache[lane, head]
                )


@compiled
def attention(q, row_scale, segments, keys, key_scale, values, value_scale, scale, window, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.attention` for every row and head.

    q int16 `[R, H, Kp]` (Kp even, padded), row_scale `[R, H]`, y float32 `[R, H, K]`. The query
    heads of one key head, over neighbouring rows of a lane, share tiles of six.
    """
    n_kv_heads, n_pairs = keys.shape[1], keys.shape[3]
    group = q.shape[1] // n_kv_heads
    capacity = key_scale.shape[2]
    queries = np.empty((MAX_ROWS, 2 * n_pairs), np.int16)
    query_scale = np.empty(MAX_ROWS, np.float32)
    scores = np.empty((MAX_ROWS, capacity), np.float32)
    mixed = np.empty((MAX_ROWS, capacity), np.int16)
    weights = np.empty(capacity, np.int32)
    factors = np.empty(MAX_ROWS, np.float32)
    acc = np.empty((MAX_ROWS, COLUMNS), np.int32)
    for lane, row, n_rows, position in segments:
        for head in range(n_kv_heads):
            for start in range(0, n_rows * group, MAX_ROWS):
                n = min(MAX_ROWS, n_rows * group - start)
                for t in range(n):
                    i, g = divmod(start + t, group)
                    queries[t] = q[row + i, head * group + g]
                    query_scale[t] = row_scale[row + i, head * group + g] * scale
                first = position + start // group
                last = position + (start + n - 1) // group
                low = max(0, first + 1 - window) if window else 0
                low_block, end_block = low // COLUMNS, last // COLUMNS + 1
                for block in range(low_block, end_block):
                    scaled_products(
                        queries.ctypes.data,
                        n_pairs,
                        keys[lane, head, block].ctypes.data,
                        n_pairs,
                        scores.ctypes.data + block * COLUMNS * 4,
                        capacity,
                        query_scale.ctypes.data,
                        key_scale[lane, head, block * COLUMNS :].ctypes.data,
                        n,
                    )
                low_pair, end_pair = low_block * (COLUMNS // 2), last // 2 + 1
                for t in range(n):
                    i, g = divmod(start + t, group)
                    own = position + i
                    seen = max(0, own + 1 - window) if window else 0
                    mixed[t, 2 * low_pair : seen] = 0
                    mixed[t, own + 1 : 2 * end_pair] = 0
                    factors[t] = mix_weights(
                        scores[t, seen : own + 1],
                        value_scale[lane, head, seen : own + 1],
                        weights[seen : own + 1],
                        mixed[t, seen : own + 1],
                    )
                for block in range(values.shape[2]):
                    products(
                        mixed.ctypes.data + low_pair * 4,
                        capacity // 2,
                        values[lane, head, block, low_pair].ctypes.data,
                        end_pair - low_pair,
                        acc.ctypes.data,
                        COLUMNS,
                        n,
                    )
                    width = min(COLUMNS, y.shape[2] - block * COLUMNS)
                    for t in range(n):
                        i, g = divmod(start + t, group)
                        for j in range(width):
                            value = np.float32(acc[t, j]) * factors[t]
                            y[row + i, head * group + g, block * COLUMNS + j] = value


@compiled
def mix_weights(x, value_scale, weights, mixed):  # type: ignore[no-untyped-def]
    """Scores of one query (overwritten) to quantised weights of the values; returns what sums are multiplied by."""
    n = x.shape[0]
    greatest = find_greatest(x)
    for j in range(n):
        x[j] = greatest - x[j]
    exp_weights(x, weights)
    total = np.int64(0)
    for j in range(n):
        total += np.int64(weights[j])
        x[j] = np.float32(weights[j]) * value_scale[j]
    scale = quantise_row(x, _ATTENTION_LIMIT, mixed)
    return np.float32(np.float64(scale) / np.float64(total))
