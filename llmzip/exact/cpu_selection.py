"""Selective attention compiled: the twin of `reference.forget`, `select` and `least_needed` with a pruned cache.

A lane's keys of one layer lie in slots, in no order. A slot whose F has reached the cutoff is free, so that
what is excluded and what was never written are one thing; a layer with a budget has no more slots than that.
Rows of a lane go one after the other, since each decides what the next ones see.
"""

from __future__ import annotations

import numpy as np

from llmzip.exact.cpu_attention import mix_weights, store_key, store_value
from llmzip.exact.cpu_products import compiled, products, scaled_products
from llmzip.exact.products import COLUMNS
from llmzip.exact.spec import MAX_WINDOW, SELECTION_STEPS

_UNIT = np.float32(1 / SELECTION_STEPS)
_STEPS = np.float32(SELECTION_STEPS)
_ROUND = np.float32(12582912.0)
_ZERO = np.float32(0)
# What is taken from the score of a free slot: enough for a weight of 0 beside any score.
_FREE = np.float32(1e30)
# F and the position in one integer of 31 bits, so that one maximum finds the key to give up.
_PLACES = np.int32(MAX_WINDOW)


@compiled
def selective_attention(  # type: ignore[no-untyped-def]
    q, row_scale, k, v, segments, keys, key_scale, values, value_scale, forgotten, places, used,
    n_slots, cutoff, protect_first, mask_self, y,
):  # fmt: skip
    """Store each row's key and value, attend with its queries, and let head 0 forget.

    q int16 `[R, H, Kp]`, row_scale `[R, H]` with the attention scale in it; k and v float32 `[R, Hk, K]`; keys,
    values and their scales as for `attention`, slots in place of positions; forgotten and places int32
    `[lanes, S]`; used int32 `[lanes]`, slots from there on are free; n_slots: how many may be filled; y float32
    `[R, H, K]`.
    """
    n_heads, capacity = q.shape[1], key_scale.shape[2]
    scores = np.empty((n_heads, capacity), np.float32)
    mixed = np.empty((n_heads, capacity), np.int16)
    weights, selected = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    taken = np.empty(capacity, np.float32)
    factors = np.empty(n_heads, np.float32)
    room = np.empty(k.shape[2], np.int16)
    acc = np.empty((n_heads, COLUMNS), np.int32)
    for lane, row, n_rows, position in segments:
        f, place = forgotten[lane], places[lane]
        if position == 0:
            f[:] = cutoff
            used[lane] = 0
        for i in range(row, row + n_rows):
            slot = _free_slot(f, place, used[lane], n_slots, cutoff)
            used[lane] = max(used[lane], slot + 1)
            f[slot], place[slot] = 0, position + i - row
            for head in range(k.shape[1]):
                key_scale[lane, head, slot] = store_key(k[i, head], slot, room, keys[lane, head])
                value_scale[lane, head, slot] = store_value(v[i, head], slot, room, values[lane, head])
            n = (used[lane] + COLUMNS - 1) // COLUMNS * COLUMNS
            _score(q[i], row_scale[i], keys[lane], key_scale[lane], n, scores)
            _select(scores[0, :n], np.float32(cutoff), selected)
            for s in range(n):
                taken[s] = _FREE if f[s] >= cutoff else np.float32(f[s]) * _UNIT
            group = n_heads // value_scale.shape[1]
            for head in range(n_heads):
                for s in range(n):
                    scores[head, s] -= taken[s]
                seen = value_scale[lane, head // group, :n]
                factors[head] = mix_weights(scores[head, :n], seen, weights[:n], mixed[head, :n])
            _mix_values(mixed, factors, values[lane], n, acc, y[i])
            if protect_first and place[0] == 0:
                selected[0] = 0
            if not mask_self:
                selected[slot] = 0
            for s in range(n):
                f[s] = min(np.int32(f[s] + selected[s]), cutoff)


@compiled
def _score(q, row_scale, keys, key_scale, n, scores):  # type: ignore[no-untyped-def]
    """Scores of one row's heads with the first `n` slots of its lane."""
    n_kv_heads, n_pairs = keys.shape[0], keys.shape[2]
    group = q.shape[0] // n_kv_heads
    capacity = scores.shape[1]
    for head in range(n_kv_heads):
        first = head * group
        for block in range(n // COLUMNS):
            scaled_products(
                q[first].ctypes.data,
                n_pairs,
                keys[head, block].ctypes.data,
                n_pairs,
                scores[first].ctypes.data + block * COLUMNS * 4,
                capacity,
                row_scale[first:].ctypes.data,
                key_scale[head, block * COLUMNS :].ctypes.data,
                group,
            )


@compiled
def _mix_values(mixed, factors, values, n, acc, y):  # type: ignore[no-untyped-def]
    """Values of the first `n` slots of a lane by the quantised weights of one row's heads."""
    n_kv_heads = values.shape[0]
    group = mixed.shape[0] // n_kv_heads
    for head in range(n_kv_heads):
        first = head * group
        for block in range(values.shape[1]):
            products(
                mixed[first].ctypes.data,
                mixed.shape[1] // 2,
                values[head, block].ctypes.data,
                n // 2,
                acc.ctypes.data,
                COLUMNS,
                group,
            )
            width = min(COLUMNS, y.shape[1] - block * COLUMNS)
            for g in range(group):
                for j in range(width):
                    y[first + g, block * COLUMNS + j] = np.float32(acc[g, j]) * factors[first + g]


@compiled
def _free_slot(f, place, used, n_slots, cutoff):  # type: ignore[no-untyped-def]
    """A slot for a new key; if none is free, that of the key of greatest F, the latest of equals."""
    for s in range(used):
        if f[s] >= cutoff:
            return s
    if used < n_slots:
        return used
    greatest = np.int32(-1)
    for s in range(used):
        greatest = max(greatest, np.int32(f[s] * _PLACES + place[s]))
    for s in range(used):
        if np.int32(f[s] * _PLACES + place[s]) == greatest:
            return s
    return 0


@compiled
def _select(scores, cutoff, selected):  # type: ignore[no-untyped-def]
    """What head 0 selects, in units of F: its scores above 0, rounded, at most the cutoff."""
    for s in range(scores.shape[0]):
        steps = min(max(scores[s], _ZERO) * _STEPS, cutoff)
        selected[s] = np.int32((steps + _ROUND) - _ROUND)
