"""Compiled twins of `llmzip.exact.reference`, one thread each, free of the interpreter's lock.

Rules that keep them equal to the reference: no `fastmath`; every float literal is a float32;
rounding half to even is `(x + 1.5 * 2**23) - 1.5 * 2**23`, exact for |x| < 2**22; a maximum is
taken over the bits, where compiled code can use vectors. Bit equality is tested, not assumed.
"""

from __future__ import annotations

import numba
import numpy as np

from llmzip.exact import reference, tables
from llmzip.exact.matrix import ATTENTION_LIMIT, NORM_LIMIT, ONE_LIMB, SMALLEST
from llmzip.exact.products import COLUMNS, MAX_ROWS, product_tile, scaled_tile

_ROUND = np.float32(12582912.0)
_ZERO, _ONE = np.float32(0), np.float32(1)
_SMALLEST_BITS = int(SMALLEST.view(np.int32))
_LOG2_E_STEPS = reference.LOG2_E_STEPS
_EXP_LIMIT = reference.EXP_LIMIT
_EXP_UNIT = np.float32(2.0**-24)
_EXP2 = tables.exp2_table()
_TERMS_IN_INT32 = 2048
_ATTENTION_LIMIT = np.float32(ATTENTION_LIMIT)

_HASH_MULTIPLIERS = np.array(reference.HASH_MULTIPLIERS, dtype=np.int64)
_WORD = np.int64(0xFFFFFFFF)

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")

_tile_1, _tile_2, _tile_3 = product_tile(1), product_tile(2), product_tile(3)
_tile_4, _tile_6 = product_tile(4), product_tile(6)
_scaled_1, _scaled_2, _scaled_3 = scaled_tile(1), scaled_tile(2), scaled_tile(3)
_scaled_4, _scaled_6 = scaled_tile(4), scaled_tile(6)


@_compiled
def _products(a, a_stride, b, n_pairs, c, c_stride, n_rows):  # type: ignore[no-untyped-def]
    """Rows of int16 times sixteen packed columns, in tiles of at most six rows."""
    done = 0
    while done < n_rows:
        left = n_rows - done
        a_row, c_row = a + done * a_stride * 4, c + done * c_stride * 4
        if left >= 6:
            _tile_6(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 6
        elif left >= 4:
            _tile_4(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 4
        elif left == 3:
            _tile_3(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 3
        elif left == 2:
            _tile_2(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 2
        else:
            _tile_1(a_row, a_stride, b, n_pairs, c_row, c_stride)
            done += 1


@_compiled
def _scaled_products(a, a_stride, b, n_pairs, c, c_stride, row_scale, column_scale, n_rows):  # type: ignore[no-untyped-def]
    """As `_products`, the sums scaled to float32."""
    done = 0
    while done < n_rows:
        left = n_rows - done
        a_row, c_row, scale = a + done * a_stride * 4, c + done * c_stride * 4, row_scale + done * 4
        if left >= 6:
            _scaled_6(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 6
        elif left >= 4:
            _scaled_4(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 4
        elif left == 3:
            _scaled_3(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 3
        elif left == 2:
            _scaled_2(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 2
        else:
            _scaled_1(a_row, a_stride, b, n_pairs, c_row, c_stride, scale, column_scale)
            done += 1


@_compiled
def _quantise_row(x, limit, q):  # type: ignore[no-untyped-def]
    """Twin of `reference.quantise_rows` for one row; returns the scale."""
    bits = x.view(np.int32)
    greatest_bits = np.int32(0)
    for i in range(x.shape[0]):
        greatest_bits = max(greatest_bits, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
    if greatest_bits < _SMALLEST_BITS:
        for i in range(x.shape[0]):
            q[i] = 0
        return _ZERO
    greatest = np.int32(greatest_bits).view(np.float32)
    inverse = limit / greatest
    for i in range(x.shape[0]):
        q[i] = np.int16(np.int32((x[i] * inverse + _ROUND) - _ROUND))
    return greatest / limit


@_compiled
def quantise_rows(x, limit, q, scale):  # type: ignore[no-untyped-def]
    """Twin of `reference.quantise_rows`; columns of `q` beyond those of `x` become zero."""
    width = x.shape[1]
    for r in range(x.shape[0]):
        scale[r] = _quantise_row(x[r], limit, q[r, :width])
        for i in range(width, q.shape[1]):
            q[r, i] = 0


@_compiled
def pack_matrix(weight, packed):  # type: ignore[no-untyped-def]
    """Lay out int8 `[N, K]` as `[blocks, pairs, 16, 2]`, zeros where N or K are padded."""
    n_columns, n_terms = weight.shape
    for block in range(packed.shape[0]):
        for pair in range(packed.shape[1]):
            for column in range(COLUMNS):
                for parity in range(2):
                    n, k = block * COLUMNS + column, 2 * pair + parity
                    inside = n < n_columns and k < n_terms
                    packed[block, pair, column, parity] = weight[n, k] if inside else 0


@_compiled
def linear(q, row_scale, wide, packed, scale, bias, residual, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.linear`. `wide`: sums may leave int32, so add blocks of terms in int64.

    q int16 `[R, 2 * pairs]`, packed int8 `[blocks, pairs, 16, 2]`, scale and bias float32 (bias
    may be empty), y float32 `[R, N]`. A residual `[R, N]` (or empty) is added last.
    """
    n_rows, n_columns = y.shape
    n_pairs = packed.shape[1]
    for block in range(packed.shape[0]):
        a, b = q.ctypes.data, packed.ctypes.data + block * n_pairs * 2 * COLUMNS
        first = block * COLUMNS
        if wide or n_columns - first < COLUMNS:
            _linear_block(a, b, n_pairs, row_scale, wide, scale[first:], y[:, first : first + COLUMNS])
        else:
            c, column_scale = y.ctypes.data + first * 4, scale.ctypes.data + first * 4
            _scaled_products(a, n_pairs, b, n_pairs, c, n_columns, row_scale.ctypes.data, column_scale, n_rows)
    if bias.shape[0]:
        for r in range(n_rows):
            for j in range(n_columns):
                y[r, j] += bias[j]
    for r in range(residual.shape[0]):
        for j in range(n_columns):
            y[r, j] += residual[r, j]


@_compiled
def _linear_block(a, b, n_pairs, row_scale, wide, scale, y):  # type: ignore[no-untyped-def]
    """Up to sixteen columns whose sums are wide, or fewer than sixteen."""
    n_rows, width = y.shape
    acc = np.empty((MAX_ROWS, COLUMNS), np.int32)
    total = np.empty((MAX_ROWS, COLUMNS), np.int64)
    for row in range(0, n_rows, MAX_ROWS):
        n = min(MAX_ROWS, n_rows - row)
        terms = 2 * n_pairs if not wide else _TERMS_IN_INT32
        total[:n] = 0
        for pair in range(0, n_pairs, terms // 2):
            some = min(terms // 2, n_pairs - pair)
            a_part = a + (row * n_pairs + pair) * 4
            _products(a_part, n_pairs, b + pair * 2 * COLUMNS, some, acc.ctypes.data, COLUMNS, n)
            for r in range(n):
                for j in range(COLUMNS):
                    total[r, j] += acc[r, j]
        for r in range(n):
            for j in range(width):
                y[row + r, j] = (np.float32(total[r, j]) * row_scale[row + r]) * scale[j]


@_compiled
def embed_runs(x, q, scale, runs, shift, y):  # type: ignore[no-untyped-def]
    """Add to each row of x `[R, D]` what tables q int8 `[T, rows, D / T]` hold for its runs int64 `[R, T + 1]`."""
    n_tables, _, width = q.shape
    for i in range(x.shape[0]):
        h = runs[i, 0] * _HASH_MULTIPLIERS[0]
        for table in range(n_tables):
            h ^= runs[i, table + 1] * _HASH_MULTIPLIERS[table + 1]
            row = (((h & _WORD) * _HASH_MULTIPLIERS[0]) & _WORD) >> shift
            for j in range(width):
                y[i, table * width + j] = x[i, table * width + j] + np.float32(q[table, row, j]) * scale[table, row]


@_compiled
def norm(x, weight, bias, eps, subtract_mean, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.rms_norm` and `reference.layer_norm` (`subtract_mean`, with bias)."""
    q = np.empty(x.shape[1], np.int16)
    for r in range(x.shape[0]):
        _norm_row(x[r], weight, bias, eps, subtract_mean, q, y[r])


@_compiled
def norm_rows(x, weight, bias, eps, subtract_mean, limit, q, scale):  # type: ignore[no-untyped-def]
    """`norm`, then `quantise_rows`, a row at a time."""
    width = x.shape[1]
    y, squares = np.empty(width, np.float32), np.empty(width, np.int16)
    for r in range(x.shape[0]):
        _norm_row(x[r], weight, bias, eps, subtract_mean, squares, y)
        scale[r] = _quantise_row(y, limit, q[r, :width])
        for i in range(width, q.shape[1]):
            q[r, i] = 0


@_compiled
def _norm_row(x, weight, bias, eps, subtract_mean, q, y):  # type: ignore[no-untyped-def]
    """`norm` of one row; `q` is room for its integers."""
    width = x.shape[0]
    limit = np.float32(NORM_LIMIT)
    if subtract_mean:
        scale = np.float64(_quantise_row(x, limit, q))
        total = np.int64(0)
        for i in range(width):
            total += np.int64(q[i])
        mean = np.float32(scale * (np.float64(total) / np.float64(width)))
        for i in range(width):
            y[i] = x[i] - mean
    else:
        for i in range(width):
            y[i] = x[i]
    scale = np.float64(_quantise_row(y, limit, q))
    squares = np.int64(0)
    for i in range(width):
        squares += np.int64(np.int32(q[i]) * np.int32(q[i]))
    mean_square = (scale * scale) * (np.float64(squares) / np.float64(width))
    inverse = np.float32(np.float64(1.0) / np.sqrt(mean_square + np.float64(eps)))
    for i in range(width):
        y[i] = (y[i] * inverse) * weight[i]
    if subtract_mean:
        for i in range(width):
            y[i] += bias[i]


@_compiled
def rotate(x, head_width, cos, sin, positions):  # type: ignore[no-untyped-def]
    """Twin of `reference.rotate`, in place, on `[R, H * head_width]`."""
    half = cos.shape[1]
    for r in range(x.shape[0]):
        c, s = cos[positions[r]], sin[positions[r]]
        for head in range(0, x.shape[1], head_width):
            low, high = x[r, head : head + half], x[r, head + half : head + 2 * half]
            for i in range(half):
                a, b = low[i], high[i]
                low[i] = a * c[i] - b * s[i]
                high[i] = b * c[i] + a * s[i]


@_compiled
def _exp_weights(distance, weights):  # type: ignore[no-untyped-def]
    """Twin of `reference.exp_weights`, in two passes: the first is vector code, the second is look-ups."""
    for i in range(distance.shape[0]):
        weights[i] = np.int32((min(distance[i] * _LOG2_E_STEPS, _EXP_LIMIT) + _ROUND) - _ROUND)
    for i in range(distance.shape[0]):
        weights[i] = _EXP2[weights[i] & 1023] >> (weights[i] >> 10)


@_compiled
def activate(kind, gate, up, gated, normal, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.ACTIVATIONS[kind](gate)`, times `up` where `gated`.

    kind: 0 silu, 1 gelu_tanh, 2 gelu, 3 relu2. `normal` is the table of the last (empty for the others).
    """
    width = gate.shape[1]
    u, weights = np.empty(width, np.float32), np.empty(width, np.int32)
    for r in range(gate.shape[0]):
        _activate_row(kind, gate[r], up[r], gated, normal, u, weights, y[r])


@_compiled
def activate_rows(kind, gate, up, gated, normal, limit, q, scale):  # type: ignore[no-untyped-def]
    """`activate`, then `quantise_rows`, a row at a time."""
    width = gate.shape[1]
    u, weights = np.empty(width, np.float32), np.empty(width, np.int32)
    y = np.empty(width, np.float32)
    for r in range(gate.shape[0]):
        _activate_row(kind, gate[r], up[r], gated, normal, u, weights, y)
        scale[r] = _quantise_row(y, limit, q[r, :width])
        for i in range(width, q.shape[1]):
            q[r, i] = 0


@_compiled
def _activate_row(kind, x, up, gated, normal, u, weights, y):  # type: ignore[no-untyped-def]
    """`activate` of one row; `u` and `weights` are room for what the exponential needs."""
    width = x.shape[0]
    if kind == 3:
        for i in range(width):
            positive = max(x[i], _ZERO)
            y[i] = positive * positive
    elif kind == 2:
        _gelu(x, normal, y)
    else:
        if kind == 1:
            for i in range(width):
                u[i] = (x[i] + ((x[i] * x[i]) * x[i]) * np.float32(0.044715)) * np.float32(1.5957691216)
        else:
            u[:] = x
        for i in range(width):
            y[i] = abs(u[i])
        _exp_weights(y, weights)
        for i in range(width):
            e = np.float32(weights[i]) * _EXP_UNIT
            y[i] = (x[i] * e if u[i] < _ZERO else x[i]) / (_ONE + e)
    if gated:
        for i in range(width):
            y[i] = y[i] * up[i]


@_compiled
def _gelu(x, normal, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.gelu` for one row."""
    for i in range(x.shape[0]):
        place = min(abs(x[i]) * np.float32(tables.NORMAL_STEPS), np.float32(normal.shape[0] - 2))
        index = np.int32(place)
        fraction = place - np.float32(index)
        phi = normal[index] + (normal[index + 1] - normal[index]) * fraction
        y[i] = x[i] * (_ONE - phi if x[i] < _ZERO else phi)


@_compiled
def write_keys(x, segments, cache, cache_scale):  # type: ignore[no-untyped-def]
    """Quantise key heads and store them at their positions.

    x float32 `[R, Hk, K]`; cache int8 `[lanes, Hk, S / 16, K / 2, 16, 2]`; scale `[lanes, Hk, S]`.
    """
    n_heads, width = x.shape[1], x.shape[2]
    q = np.empty(width, np.int16)
    for lane, row, n_rows, position in segments:
        for i in range(n_rows):
            block, column = divmod(position + i, COLUMNS)
            for head in range(n_heads):
                cache_scale[lane, head, position + i] = _quantise_row(x[row + i, head], np.float32(ONE_LIMB), q)
                for k in range(width):
                    cache[lane, head, block, k >> 1, column, k & 1] = q[k]


@_compiled
def write_values(x, segments, cache, cache_scale):  # type: ignore[no-untyped-def]
    """Quantise value heads and store them; cache int8 `[lanes, Hk, K / 16, S / 2, 16, 2]`."""
    n_heads, width = x.shape[1], x.shape[2]
    q = np.empty(width, np.int16)
    for lane, row, n_rows, position in segments:
        for i in range(n_rows):
            pair, parity = divmod(position + i, 2)
            for head in range(n_heads):
                cache_scale[lane, head, position + i] = _quantise_row(x[row + i, head], np.float32(ONE_LIMB), q)
                for k in range(width):
                    cache[lane, head, k // COLUMNS, pair, k % COLUMNS, parity] = q[k]


@_compiled
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
                    _scaled_products(
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
                    factors[t] = _mix(
                        scores[t, seen : own + 1],
                        value_scale[lane, head, seen : own + 1],
                        weights[seen : own + 1],
                        mixed[t, seen : own + 1],
                    )
                for block in range(values.shape[2]):
                    _products(
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


@_compiled
def _mix(x, value_scale, weights, mixed):  # type: ignore[no-untyped-def]
    """Scores of one query (overwritten) to quantised weights of the values; returns what sums are multiplied by."""
    n = x.shape[0]
    greatest = _greatest(x)
    for j in range(n):
        x[j] = greatest - x[j]
    _exp_weights(x, weights)
    total = np.int64(0)
    for j in range(n):
        total += np.int64(weights[j])
        x[j] = np.float32(weights[j]) * value_scale[j]
    scale = _quantise_row(x, _ATTENTION_LIMIT, mixed)
    return np.float32(np.float64(scale) / np.float64(total))


@_compiled
def _greatest(x):  # type: ignore[no-untyped-def]
    """The maximum of finite floats, found on their bits (which order like integers once flipped)."""
    bits = x.view(np.int32)
    greatest = np.int32(-0x80000000)
    for i in range(x.shape[0]):
        flipped = np.int32(bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        greatest = max(greatest, flipped)
    return np.int32(greatest ^ ((greatest >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@_compiled
def output_weights(logits, weights):  # type: ignore[no-untyped-def]
    """Twin of `reference.output_weights`."""
    distance = np.empty(logits.shape[1], np.float32)
    for r in range(logits.shape[0]):
        greatest = _greatest(logits[r])
        for v in range(logits.shape[1]):
            distance[v] = greatest - logits[r, v]
        _exp_weights(distance, weights[r])
        for v in range(logits.shape[1]):
            weights[r, v] = max(np.int32(1), weights[r, v])


@_compiled
def _share(weights, n, total_weight, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.frequencies` for one row."""
    total = (np.int64(1) << reference.FREQUENCY_BITS) - n
    left, best = total, 0
    for i in range(n):
        share = np.int64(np.uint64(weights[i] * total) // np.uint64(total_weight))
        y[i] = np.float32(share)
        left -= share
        if weights[i] > weights[best]:
            best = i
    share = np.int64(np.uint64(weights[best] * total) // np.uint64(total_weight))
    y[best] = np.float32(share + left)


@_compiled
def bucket_frequencies(weights, n, y):  # type: ignore[no-untyped-def]
    """Frequencies of the buckets of `n` tokens each; weights int32 `[R, V]`, y float32 `[R, n]`."""
    vocab_size = weights.shape[1]
    sums = np.empty(n, np.int64)
    for r in range(weights.shape[0]):
        total = np.int64(0)
        for bucket in range(n):
            sums[bucket] = _sum(weights[r, min(bucket * n, vocab_size) : min((bucket + 1) * n, vocab_size)])
            total += sums[bucket]
        _share(sums, n, total, y[r])


@_compiled
def _sum(weights):  # type: ignore[no-untyped-def]
    """The sum of some weights; of less than 128, each at most 2**24, in int32, which fills more of a vector."""
    if weights.shape[0] < 128:
        narrow = np.int32(0)
        for i in range(weights.shape[0]):
            narrow = np.int32(narrow + weights[i])
        return np.int64(narrow)
    total = np.int64(0)
    for i in range(weights.shape[0]):
        total += np.int64(weights[i])
    return total


@_compiled
def member_frequencies(weights, buckets, n, y):  # type: ignore[no-untyped-def]
    """Frequencies of the tokens of one bucket a row; y float32 `[R, n]`, zeros past the vocabulary."""
    vocab_size = weights.shape[1]
    members = np.empty(n, np.int64)
    for r in range(weights.shape[0]):
        first = buckets[r] * n
        total = np.int64(0)
        for i in range(n):
            members[i] = np.int64(weights[r, first + i]) if first + i < vocab_size else 0
            total += members[i]
        _share(members, n, total, y[r])
