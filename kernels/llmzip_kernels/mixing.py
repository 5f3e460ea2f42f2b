# ruff: noqa: TID253
"""What a tile of queries makes of the keys and values of one key head: the middle of both kinds of attention.

The scores are computed three times, from keys that lie in the caches of the device by then, since each of equations
(15) to (17) needs all of the one before.
"""

from __future__ import annotations

import triton
import triton.language as tl

from llmzip.exact.matrix import ATTENTION_LIMIT
from llmzip.exact.spec import SELECTION_STEPS
from llmzip_kernels.arithmetic import exp_weights, inverse_and_scale, round_half_even

# Positions at once. Of 64 weights of at most 2**24 the sum stays in int32; products of int8 need at least 32 terms.
BLOCK_S = 64
_BLOCK = tl.constexpr(BLOCK_S)
_ATTENTION_LIMIT = tl.constexpr(float(ATTENTION_LIMIT))
_UNIT = tl.constexpr(1 / SELECTION_STEPS)
# A distance from which on weights are 0.
_FAR = tl.constexpr(1024.0)
_LOWEST = tl.constexpr(float("-inf"))


def stages(block_m: int) -> int:
    """Stages of the loops over so many queries: from 64 on products take other instructions, not to be pipelined."""
    return 1 if block_m >= 64 else 3


@triton.jit
def block_scores(q, z, keys_ptr, key_scale_ptr, s, padded, i_c):
    """Scores of queries int8 `[M, C]` with keys `s` onwards. Source: equation (15)."""
    i_s = s + tl.arange(0, _BLOCK)
    o_keys = i_s.to(tl.int64)[None, :] * padded + i_c[:, None]
    keys = tl.load(keys_ptr + o_keys, mask=(i_c < padded)[:, None], other=0)
    acc = tl.dot(q, keys, out_dtype=tl.int32)
    return (acc.to(tl.float32) * z[:, None]) * tl.load(key_scale_ptr + i_s)[None, :]


@triton.jit
def block_seen(
    q, z, first, own, keys_ptr, key_scale_ptr, forgotten_ptr, cutoff, s, padded, i_c, SELECTIVE: tl.constexpr
):
    """Scores as they count, and which of them do. Source: equation (21) for selective attention."""
    score = block_scores(q, z, keys_ptr, key_scale_ptr, s, padded, i_c)
    i_s = s + tl.arange(0, _BLOCK)
    if SELECTIVE:
        forgotten = tl.load(forgotten_ptr + i_s)
        score = score - (forgotten.to(tl.float32) * _UNIT)[None, :]
        seen = (forgotten < cutoff)[None, :] & (own >= 0)[:, None]
    else:
        seen = (i_s[None, :] <= own[:, None]) & (i_s[None, :] >= first[:, None])
    return score, seen


@triton.jit
def attend(q, z, first, own, keys_ptr, key_scale_ptr, values_ptr, value_scale_ptr, forgotten_ptr, cutoff, table_ptr,
           low, end, padded, capacity, i_c, SELECTIVE: tl.constexpr,
           BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Values mixed by queries int8 `[M, C]` whose scales times the attention scale are z `[M]`; float32 `[M, C]`.

    Seen are positions first to own, both `[M]`, or under selection those below the cutoff; all of them lie from low up
    to end. keys int8 `[S, Kp]`, values `[Kp, S]` and their scales `[S]` of one head; F int32 `[S]`.
    """
    greatest = tl.full((BLOCK_M,), _LOWEST, tl.float32)
    for s in range(low, end, _BLOCK):
        score, seen = block_seen(
            q, z, first, own, keys_ptr, key_scale_ptr, forgotten_ptr, cutoff, s, padded, i_c, SELECTIVE
        )
        greatest = tl.maximum(greatest, tl.max(tl.where(seen, score, _LOWEST), axis=1))
    total = tl.zeros((BLOCK_M,), tl.int64)
    heaviest = tl.zeros((BLOCK_M,), tl.float32)
    for s in range(low, end, _BLOCK):
        score, seen = block_seen(
            q, z, first, own, keys_ptr, key_scale_ptr, forgotten_ptr, cutoff, s, padded, i_c, SELECTIVE
        )
        weight = exp_weights(tl.where(seen, greatest[:, None] - score, _FAR), table_ptr)
        total += tl.sum(weight, axis=1).to(tl.int64)
        value_scale = tl.load(value_scale_ptr + s + tl.arange(0, _BLOCK))
        heaviest = tl.maximum(heaviest, tl.max(weight.to(tl.float32) * value_scale[None, :], axis=1))
    inverse, scale = inverse_and_scale(heaviest, _ATTENTION_LIMIT)
    high = tl.zeros((BLOCK_M, BLOCK_C), tl.int32)
    rest = tl.zeros((BLOCK_M, BLOCK_C), tl.int32)
    for s in range(low, end, _BLOCK):
        score, seen = block_seen(
            q, z, first, own, keys_ptr, key_scale_ptr, forgotten_ptr, cutoff, s, padded, i_c, SELECTIVE
        )
        weight = exp_weights(tl.where(seen, greatest[:, None] - score, _FAR), table_ptr)
        i_s = s + tl.arange(0, _BLOCK)
        value_scale = tl.load(value_scale_ptr + i_s)
        mixed = round_half_even((weight.to(tl.float32) * value_scale[None, :]) * inverse[:, None]).to(tl.int32)
        limb = (mixed + 64) >> 7
        o_values = i_c.to(tl.int64)[None, :] * capacity + i_s[:, None]
        values = tl.load(values_ptr + o_values, mask=(i_c < padded)[None, :], other=0)
        high = tl.dot(limb.to(tl.int8), values, high, out_dtype=tl.int32)
        rest = tl.dot((mixed - 128 * limb).to(tl.int8), values, rest, out_dtype=tl.int32)
    factor = scale.to(tl.float64) / tl.maximum(total, 1).to(tl.float64)
    return (high * 128 + rest).to(tl.float32) * factor.to(tl.float32)[:, None]
