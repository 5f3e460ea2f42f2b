"""The operations of the exact arithmetic, in NumPy: short, slow and normative.

Every backend gives the same bits as these functions for every input within the stated ranges.
Sums run over integers only; everything else is one correctly rounded float32 (or, for a few
numbers a row, float64) operation at a time, in the written order. ARITHMETIC.md says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmzip.exact import tables
from llmzip.exact.matrix import ATTENTION_LIMIT, NORM_LIMIT, ONE_LIMB, SMALLEST, QuantisedMatrix, Rows
from llmzip.exact.spec import SELECTION_STEPS, Selection

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

LOG2_E_STEPS = np.float32(1477.3197218702985)
EXP_LIMIT = np.float32(31 * tables.EXP_STEPS)
FREQUENCY_BITS = 24
HASH_MULTIPLIERS = (2654435761, 2246822507, 3266489917, 668265263)


def quantise_rows(x: Floats, limit: int) -> Rows:
    """Scale each row so that its greatest magnitude becomes `limit`, and round to integers.

    Args:
        x: float32 `[R, D]`.
        limit: greatest integer, at most 32767.

    Returns:
        The integers and `scale = max|x| / limit` of each row; rows below 2**-60 become zeros.

    Source: ARITHMETIC.md, section 4.1.
    """
    greatest = np.abs(x).max(axis=1)
    nonzero = greatest >= SMALLEST
    safe = np.where(nonzero, greatest, np.float32(1))
    inverse = np.where(nonzero, np.float32(limit) / safe, np.float32(0))
    scale = np.where(nonzero, safe / np.float32(limit), np.float32(0))
    return Rows(np.rint(x * inverse[:, None]).astype(np.int16), scale, limit)


def linear(rows: Rows, matrix: QuantisedMatrix) -> Floats:
    """`y = acc * row scale * column scale (+ bias)`, `acc` the exact integer product, `[R, N]`.

    Source: ARITHMETIC.md, section 4.2.
    """
    acc = rows.q.astype(np.int64) @ matrix.q.astype(np.int64).T
    y: Floats = (acc.astype(np.float32) * rows.scale[:, None]) * matrix.scale[None, :]
    return y if matrix.bias is None else y + matrix.bias[None, :]


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """`x / sqrt(mean(x * x) + eps) * weight`, the mean taken over 16-bit integers.

    Source: ARITHMETIC.md, section 4.3.
    """
    rows = quantise_rows(x, NORM_LIMIT)
    squares = (rows.q.astype(np.int64) ** 2).sum(axis=1)
    scale = rows.scale.astype(np.float64)
    mean = (scale * scale) * (squares.astype(np.float64) / np.float64(x.shape[1]))
    inverse = (1.0 / np.sqrt(mean + np.float64(np.float32(eps)))).astype(np.float32)
    y: Floats = (x * inverse[:, None]) * weight[None, :]
    return y


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Subtract the row's mean (over 16-bit integers), then as `rms_norm`, then add `bias`.

    Source: ARITHMETIC.md, section 4.3.
    """
    rows = quantise_rows(x, NORM_LIMIT)
    sums = rows.q.astype(np.int64).sum(axis=1).astype(np.float64)
    mean = (rows.scale.astype(np.float64) * (sums / np.float64(x.shape[1]))).astype(np.float32)
    return rms_norm(x - mean[:, None], weight, eps) + bias[None, :]


def rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotate the channel pairs (i, i + width / 2) of each head by its position's angles.

    Args:
        x: float32 `[R, H, K]`.
        cos: `[R, rotary_width / 2]`; channels beyond `rotary_width` pass unchanged.
        sin: likewise.

    Source: ARITHMETIC.md, section 4.4.
    """
    half = cos.shape[1]
    a, b = x[:, :, :half], x[:, :, half : 2 * half]
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([a * c - b * s, b * c + a * s, x[:, :, 2 * half :]], axis=2)


def exp_weights(distance: Floats) -> NDArray[np.int32]:
    """`2**24 * exp(-distance)` as integers from the table, for distances >= 0.

    Source: ARITHMETIC.md, section 4.5.
    """
    steps = np.rint(np.minimum(distance * LOG2_E_STEPS, EXP_LIMIT)).astype(np.int32)
    weights: NDArray[np.int32] = tables.exp2_table()[steps & (tables.EXP_STEPS - 1)] >> (steps >> 10)
    return weights


def silu(x: Floats) -> Floats:
    """`x / (1 + exp(-x))`. Source: ARITHMETIC.md, section 4.6."""
    return _times_sigmoid(x, x)


def gelu_tanh(x: Floats) -> Floats:
    """The tanh form of GELU, as `x * sigmoid(2 u)`. Source: ARITHMETIC.md, section 4.6."""
    cubic = ((x * x) * x) * np.float32(0.044715)
    return _times_sigmoid(x, (x + cubic) * np.float32(1.5957691216))


def gelu(x: Floats) -> Floats:
    """`x * Phi(x)`, Phi interpolated from its table. Source: ARITHMETIC.md, section 4.6."""
    table = tables.normal_table()
    place = np.minimum(np.abs(x) * np.float32(tables.NORMAL_STEPS), np.float32(len(table) - 2))
    index = place.astype(np.int32)
    fraction = place - index.astype(np.float32)
    phi = table[index] + (table[index + 1] - table[index]) * fraction
    y: Floats = x * np.where(x < 0, np.float32(1) - phi, phi)
    return y


def relu2(x: Floats) -> Floats:
    """The square of `max(x, 0)`. Source: ARITHMETIC.md, section 4.6."""
    positive = np.maximum(x, np.float32(0))
    y: Floats = positive * positive
    return y


def _times_sigmoid(x: Floats, u: Floats) -> Floats:
    e = exp_weights(np.abs(u)).astype(np.float32) * np.float32(2.0**-24)
    y: Floats = np.where(u < 0, x * e, x) / (np.float32(1) + e)
    return y


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh, "gelu": gelu, "relu2": relu2}


def attention(q: Floats, keys: Rows, values: Rows, position: int, scale: float, window: int) -> Floats:
    """One query row of every head of one key head's group, over the keys up to its position.

    Args:
        q: float32 `[G, K]`, rotated.
        keys: the head's cache, `[S, K]`, S > position.
        values: likewise.
        position: index of the query's own key.
        scale: what scores are multiplied by.
        window: how many latest keys are seen, or 0 for all.

    Returns:
        float32 `[G, K]`.

    Source: ARITHMETIC.md, section 4.7.
    """
    first = max(0, position + 1 - window) if window else 0
    seen = slice(first, position + 1)
    scores = attention_scores(q, Rows(keys.q[seen], keys.scale[seen], keys.limit), scale)
    return mix_values(scores, Rows(values.q[seen], values.scale[seen], values.limit))


def attention_scores(q: Floats, keys: Rows, scale: float) -> Floats:
    """Scaled scores `[G, S]` of queries `[G, K]`. Source: ARITHMETIC.md, equation (15)."""
    rows = quantise_rows(q, ONE_LIMB)
    acc = rows.q.astype(np.int64) @ keys.q.astype(np.int64).T
    row_scale = rows.scale * np.float32(scale)
    scores: Floats = (acc.astype(np.float32) * row_scale[:, None]) * keys.scale[None, :]
    return scores


def mix_values(scores: Floats, values: Rows) -> Floats:
    """Values `[S, K]` mixed by scores `[G, S]`. Source: ARITHMETIC.md, equations (16) and (17)."""
    weights = exp_weights(scores.max(axis=1, keepdims=True) - scores)
    mixed = quantise_rows(weights.astype(np.float32) * values.scale[None, :], ATTENTION_LIMIT)
    sums = mixed.q.astype(np.int64) @ values.q.astype(np.int64)
    factor = mixed.scale.astype(np.float64) / weights.sum(axis=1, dtype=np.int64).astype(np.float64)
    y: Floats = sums.astype(np.float32) * factor.astype(np.float32)[:, None]
    return y


def forget(scores: Floats, forgotten: Integers) -> Floats:
    """Scores `[G, S]` less F, integers `[S]` of 1/1024 nat. Source: ARITHMETIC.md, section 4.8."""
    y: Floats = scores - (forgotten.astype(np.float32) * np.float32(1 / SELECTION_STEPS))[None, :]
    return y


def select(scores: Floats, forgotten: Integers, positions: Integers, own: int, selection: Selection) -> Integers:
    """F after a query, from its scores `[S]` of the selecting head, before anything was forgotten.

    Args:
        scores: float32 `[S]`.
        forgotten: F at this query, below the cutoff, `[S]`.
        positions: of the keys, `[S]`.
        own: the query's position.
        selection: cutoff and rules.

    Source: ARITHMETIC.md, section 4.8.
    """
    steps = np.maximum(scores, np.float32(0)) * np.float32(SELECTION_STEPS)
    selected = np.rint(np.minimum(steps, np.float32(selection.cutoff))).astype(np.int64)
    spared = np.zeros(len(positions), dtype=bool)
    if selection.protect_first:
        spared |= positions == 0
    if not selection.mask_self:
        spared |= positions == own
    return np.minimum(forgotten + np.where(spared, 0, selected), selection.cutoff)


def least_needed(forgotten: Integers, positions: Integers) -> int:
    """Index of the key that a full layer gives up: of greatest F, the latest of equals. ARITHMETIC.md, section 4.8."""
    return int(np.lexsort((positions, forgotten))[-1])


def run_hashes(runs: Integers, rows: int) -> Integers:
    """Rows of an n-gram table for runs of tokens `[R, n]`, the last token first. ARITHMETIC.md, section 6.1."""
    word = np.int64(0xFFFFFFFF)
    h = np.zeros(len(runs), dtype=np.int64)
    for back in range(runs.shape[1]):
        h ^= (runs[:, back] * np.int64(HASH_MULTIPLIERS[back])) & word
    return ((h * np.int64(HASH_MULTIPLIERS[0])) & word) >> (33 - rows.bit_length())


def embed_runs(x: Floats, tables: Sequence[QuantisedMatrix], runs: Integers) -> Floats:
    """Add to rows `[R, D]` what each n-gram table, of D / tables columns, holds for its runs of `[R, n]`.

    Source: ARITHMETIC.md, section 6.1.
    """
    parts = []
    for i, table in enumerate(tables):
        rows = run_hashes(runs[:, : i + 2], len(table.q))
        parts.append(table.q[rows].astype(np.float32) * table.scale[rows][:, None])
    return x + np.concatenate(parts, axis=1)


def output_weights(logits: Floats) -> NDArray[np.int32]:
    """`2**24 * exp(logit - greatest)` as integers, at least 1, for each row of `[R, V]`.

    Source: ARITHMETIC.md, section 5.1.
    """
    return np.maximum(exp_weights(logits.max(axis=1, keepdims=True) - logits), 1)


def frequencies(weights: Integers) -> Integers:
    """Share 2**24 - n among n symbols in proportion to their weights, rounded down.

    What the rounding leaves goes to the first symbol of greatest weight. The coder gives every
    symbol one more, so that all frequencies are positive and sum to 2**24.

    Args:
        weights: int64 `[R, n]`, each from 0 to 2**38, each row with a positive sum.

    Returns:
        int64 `[R, n]`, each row with the sum `2**24 - n`.

    Source: ARITHMETIC.md, section 5.2.
    """
    n_rows, n = weights.shape
    total = (1 << FREQUENCY_BITS) - n
    shares: Integers = weights * total // weights.sum(axis=1, keepdims=True)
    greatest = weights.argmax(axis=1)
    shares[np.arange(n_rows), greatest] += total - shares.sum(axis=1)
    return shares
