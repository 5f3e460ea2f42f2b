"""Row operations, compiled: quantising, norms, rotation, activations, embeddings of runs of tokens, exponentials."""

from __future__ import annotations

import numpy as np

from llmzip.exact import reference, tables
from llmzip.exact.cpu_products import compiled
from llmzip.exact.matrix import NORM_LIMIT, SMALLEST

_ROUND = np.float32(12582912.0)
_ZERO, _ONE = np.float32(0), np.float32(1)
_SMALLEST_BITS = int(SMALLEST.view(np.int32))
_LOG2_E_STEPS = reference.LOG2_E_STEPS
_EXP_LIMIT = reference.EXP_LIMIT
_EXP_UNIT = np.float32(2.0**-24)
_EXP2 = tables.exp2_table()
_HASH_MULTIPLIERS = np.array(reference.HASH_MULTIPLIERS, dtype=np.int64)
_WORD = np.int64(0xFFFFFFFF)


@compiled
def quantise_row(x, limit, q):  # type: ignore[no-untyped-def]
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


@compiled
def _quantise_padded_row(x, limit, q):  # type: ignore[no-untyped-def]
    """`quantise_row` with room beyond the row, which becomes zero."""
    width = x.shape[0]
    for i in range(width, q.shape[0]):
        q[i] = 0
    return quantise_row(x, limit, q[:width])


@compiled
def quantise_rows(x, limit, q, scale):  # type: ignore[no-untyped-def]
    """Twin of `reference.quantise_rows`; columns of `q` beyond those of `x` become zero."""
    for r in range(x.shape[0]):
        scale[r] = _quantise_padded_row(x[r], limit, q[r])


@compiled
def embed(tokens, positions, q, scale, factor, prefix, learned, y):  # type: ignore[no-untyped-def]
    """Embeddings of tokens, int8 `[V, D]` with scales, times `factor`, plus learned positions `[S, D]` unless empty.

    Ids from V on are rows of `prefix`.
    """
    for i in range(tokens.shape[0]):
        token = tokens[i]
        if token < q.shape[0]:
            for j in range(y.shape[1]):
                y[i, j] = (np.float32(q[token, j]) * scale[token]) * factor
        else:
            for j in range(y.shape[1]):
                y[i, j] = prefix[token - q.shape[0], j]
        if learned.shape[0]:
            for j in range(y.shape[1]):
                y[i, j] += learned[positions[i], j]


@compiled
def find_runs(lane_tokens, segments, tokens, n_tokens, bos_id, runs):  # type: ignore[no-untyped-def]
    """Keep tokens int32 `[R]` at their lanes' positions; the runs that end in them, `[R, n]`, the last token first.

    Ids from `n_tokens` on, those of a prefix, count as BOS.
    """
    for lane, row, n_rows, position in segments:
        for i in range(n_rows):
            token = tokens[row + i]
            lane_tokens[lane, position + i] = token if token < n_tokens else bos_id
            for back in range(runs.shape[1]):
                place = position + i - back
                runs[row + i, back] = lane_tokens[lane, place] if place >= 0 else bos_id


@compiled
def shift(shifts, steered, layer, segments, x):  # type: ignore[no-untyped-def]
    """Add to rows of steered lanes what they are shifted by before a layer, of `shifts` float32 `[lanes, L + 1, D]`."""
    for lane, row, n_rows, _ in segments:
        if steered[lane]:
            for i in range(row, row + n_rows):
                for j in range(x.shape[1]):
                    x[i, j] += shifts[lane, layer, j]


@compiled
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


@compiled
def norm(x, weight, bias, eps, subtract_mean, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.rms_norm` and `reference.layer_norm` (`subtract_mean`, with bias)."""
    q = np.empty(x.shape[1], np.int16)
    for r in range(x.shape[0]):
        _norm_row(x[r], weight, bias, eps, subtract_mean, q, y[r])


@compiled
def norm_rows(x, weight, bias, eps, subtract_mean, limit, q, scale):  # type: ignore[no-untyped-def]
    """`norm`, then `quantise_rows`, a row at a time."""
    width = x.shape[1]
    y, squares = np.empty(width, np.float32), np.empty(width, np.int16)
    for r in range(x.shape[0]):
        _norm_row(x[r], weight, bias, eps, subtract_mean, squares, y)
        scale[r] = _quantise_padded_row(y, limit, q[r])


@compiled
def _norm_row(x, weight, bias, eps, subtract_mean, q, y):  # type: ignore[no-untyped-def]
    """`norm` of one row; `q` is room for its integers."""
    width = x.shape[0]
    limit = np.float32(NORM_LIMIT)
    if subtract_mean:
        scale = np.float64(quantise_row(x, limit, q))
        total = np.int64(0)
        for i in range(width):
            total += np.int64(q[i])
        mean = np.float32(scale * (np.float64(total) / np.float64(width)))
        for i in range(width):
            y[i] = x[i] - mean
    else:
        for i in range(width):
            y[i] = x[i]
    scale = np.float64(quantise_row(y, limit, q))
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


@compiled
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


@compiled
def exp_weights(distance, weights):  # type: ignore[no-untyped-def]
    """Twin of `reference.exp_weights`, in two passes: the first is vector code, the second is look-ups."""
    for i in range(distance.shape[0]):
        weights[i] = np.int32((min(distance[i] * _LOG2_E_STEPS, _EXP_LIMIT) + _ROUND) - _ROUND)
    for i in range(distance.shape[0]):
        weights[i] = _EXP2[weights[i] & 1023] >> (weights[i] >> 10)


@compiled
def find_greatest(x):  # type: ignore[no-untyped-def]
    """The maximum of finite floats, found on their bits (which order like integers once flipped)."""
    bits = x.view(np.int32)
    greatest = np.int32(-0x80000000)
    for i in range(x.shape[0]):
        flipped = np.int32(bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        greatest = max(greatest, flipped)
    return np.int32(greatest ^ ((greatest >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@compiled
def activate(kind, gate, up, gated, normal, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.ACTIVATIONS[kind](gate)`, times `up` where `gated`.

    kind: 0 silu, 1 gelu_tanh, 2 gelu, 3 relu2. `normal` is the table of the last (empty for the others).
    """
    width = gate.shape[1]
    u, weights = np.empty(width, np.float32), np.empty(width, np.int32)
    for r in range(gate.shape[0]):
        _activate_row(kind, gate[r], up[r], gated, normal, u, weights, y[r])


@compiled
def activate_rows(kind, gate, up, gated, normal, limit, q, scale):  # type: ignore[no-untyped-def]
    """`activate`, then `quantise_rows`, a row at a time."""
    width = gate.shape[1]
    u, weights = np.empty(width, np.float32), np.empty(width, np.int32)
    y = np.empty(width, np.float32)
    for r in range(gate.shape[0]):
        _activate_row(kind, gate[r], up[r], gated, normal, u, weights, y)
        scale[r] = _quantise_padded_row(y, limit, q[r])


@compiled
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
        exp_weights(y, weights)
        for i in range(width):
            e = np.float32(weights[i]) * _EXP_UNIT
            y[i] = (x[i] * e if u[i] < _ZERO else x[i]) / (_ONE + e)
    if gated:
        for i in range(width):
            y[i] = y[i] * up[i]


@compiled
def _gelu(x, normal, y):  # type: ignore[no-untyped-def]
    """Twin of `reference.gelu` for one row."""
    for i in range(x.shape[0]):
        place = min(abs(x[i]) * np.float32(tables.NORMAL_STEPS), np.float32(normal.shape[0] - 2))
        index = np.int32(place)
        fraction = place - np.float32(index)
        phi = normal[index] + (normal[index + 1] - normal[index]) * fraction
        y[i] = x[i] * (_ONE - phi if x[i] < _ZERO else phi)
