"""From a model's last rows to the frequencies that the entropy coder takes, compiled."""

from __future__ import annotations

import numpy as np

from llmzip.exact import reference
from llmzip.exact.cpu_products import brief, compiled, linear
from llmzip.exact.cpu_rows import exp_weights, find_greatest, quantise_rows


@compiled
def predict(x, limit, wide, packed, scale, bias, n, weights, buckets):  # type: ignore[no-untyped-def]
    """Logits of rows x `[R, D]` by a matrix as for `linear`; their weights int32 `[R, V]` and `bucket_frequencies`."""
    n_rows, n_terms = x.shape[0], 2 * packed.shape[1]
    q, row_scale = np.empty((n_rows, n_terms), np.int16), np.empty(n_rows, np.float32)
    quantise_rows(x, limit, q, row_scale)
    logits = np.empty(weights.shape, np.float32)
    linear(q, row_scale, wide, packed, scale, bias, np.empty((0, 0), np.float32), logits)
    output_weights(logits, weights)
    bucket_frequencies(weights, n, buckets)


@compiled
def output_weights(logits, weights):  # type: ignore[no-untyped-def]
    """Twin of `reference.output_weights`."""
    distance = np.empty(logits.shape[1], np.float32)
    for r in range(logits.shape[0]):
        greatest = find_greatest(logits[r])
        for v in range(logits.shape[1]):
            distance[v] = greatest - logits[r, v]
        exp_weights(distance, weights[r])
        for v in range(logits.shape[1]):
            weights[r, v] = max(np.int32(1), weights[r, v])


@compiled
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


@compiled
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


@compiled
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


@brief
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
