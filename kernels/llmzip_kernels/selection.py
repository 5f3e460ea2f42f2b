# ruff: noqa: TID253
"""Selective attention of rows over the slots of their lanes' pruned caches.

A slot whose F has reached the cutoff is free, so that what is excluded and what was never written are one thing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from llmzip.exact.spec import MAX_WINDOW, SELECTION_STEPS
from llmzip_kernels.activation import exp2_on
from llmzip_kernels.arithmetic import round_half_even
from llmzip_kernels.heads import Heads, Store
from llmzip_kernels.launching import EXACT, power_of_two
from llmzip_kernels.mixing import BLOCK_S, attend, block_scores, stages

_BLOCK_S = tl.constexpr(BLOCK_S)
_STEPS = tl.constexpr(float(SELECTION_STEPS))
# F and the position in one integer of 31 bits, so that one maximum finds the key to give up.
_PLACES = tl.constexpr(MAX_WINDOW)
_FREE = tl.constexpr((1 << 31) - 1)


class Slots(NamedTuple):
    """Of a layer, what stands in the slots of its store.

    Attributes:
        forgotten: F, int32 `[lanes, S]`; the cutoff in free slots, and in those from `n_slots` on.
        places: positions of the keys, int32 `[lanes, S]`.
        used: slots that have ever held a key of this window, int32 `[lanes]`.
        n_slots: how many may be filled.
    """

    forgotten: torch.Tensor
    places: torch.Tensor
    used: torch.Tensor
    n_slots: int


class Rules(NamedTuple):
    """As in `llmzip.exact.spec.Selection`."""

    cutoff: int
    protect_first: bool
    mask_self: bool


@triton.jit
def admit(forgotten_ptr, places_ptr, used_ptr, position, cutoff, n_slots, BLOCK: tl.constexpr):
    """A slot for the key of `position`: a free one, or that of the key of greatest F, the latest of equals."""
    i = tl.arange(0, BLOCK)
    m = i < n_slots
    forgotten = tl.load(forgotten_ptr + i, mask=m, other=0)
    place = tl.load(places_ptr + i, mask=m, other=0)
    rank = tl.where(forgotten >= cutoff, _FREE - i, forgotten * _PLACES + place)
    rank = tl.where(m, rank, -1)
    slot = tl.min(tl.where(rank == tl.max(rank, axis=0), i, BLOCK), axis=0)
    used = tl.maximum(tl.load(used_ptr), slot + 1)
    tl.debug_barrier()
    tl.store(forgotten_ptr + slot, 0)
    tl.store(places_ptr + slot, position)
    tl.store(used_ptr, used)
    return slot, used


@triton.jit
def keep(new_ptrs, ptrs, i_row, lane, slot, n_kv_heads, padded, capacity, i_c):
    """Copy a row's quantised keys and values into a slot; both `Store`s, the first one's lanes being rows."""
    m = i_c < padded
    for head in range(n_kv_heads):
        o_new, o_head = i_row * n_kv_heads + head, lane * n_kv_heads + head
        o_slot = o_head * capacity + slot
        tl.store(ptrs[0] + o_slot * padded + i_c, tl.load(new_ptrs[0] + o_new * padded + i_c, mask=m, other=0), mask=m)
        tl.store(ptrs[1] + o_slot, tl.load(new_ptrs[1] + o_new))
        value = tl.load(new_ptrs[2] + o_new * padded + i_c, mask=m, other=0)
        tl.store(ptrs[2] + (o_head * padded + i_c) * capacity + slot, value, mask=m)
        tl.store(ptrs[3] + o_slot, tl.load(new_ptrs[3] + o_new))


@triton.jit
def select(q, z, keys_ptr, key_scale_ptr, forgotten_ptr, places_ptr, slot, end, cutoff, padded, i_c,
           PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr):  # fmt: skip
    """F after a query whose head 0 is the first of q `[M, C]`: `llmzip.exact.reference.select`."""
    for s in range(0, end, _BLOCK_S):
        i_s = s + tl.arange(0, _BLOCK_S)
        score = block_scores(q, z, keys_ptr, key_scale_ptr, s, padded, i_c)
        own = tl.arange(0, q.shape[0])[:, None] == 0
        steps = tl.max(tl.where(own, tl.maximum(score, 0.0) * _STEPS, 0.0), axis=0)
        selected = round_half_even(tl.minimum(steps, tl.cast(cutoff, tl.float32))).to(tl.int32)
        if PROTECT_FIRST:
            selected = tl.where(tl.load(places_ptr + i_s) == 0, 0, selected)
        if not MASK_SELF:
            selected = tl.where(i_s == slot, 0, selected)
        tl.store(forgotten_ptr + i_s, tl.minimum(tl.load(forgotten_ptr + i_s) + selected, cutoff))


@triton.jit
def selective_attention_kernel(q_ptr, q_scale_ptr, segments_ptr, new_keys_ptr, new_key_scale_ptr, new_values_ptr,
                               new_value_scale_ptr, keys_ptr, key_scale_ptr, values_ptr, value_scale_ptr,
                               forgotten_ptr, places_ptr, used_ptr, table_ptr, y_ptr, scale, cutoff, n_slots,
                               n_kv_heads, width, padded, capacity,
                               PROTECT_FIRST: tl.constexpr, MASK_SELF: tl.constexpr, GROUP: tl.constexpr,
                               BLOCK_SLOTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """The rows of one segment a program, one after the other.

    q int8 `[R, H, Kp]` and its scales `[R, H]`, segments int32 `[n, 4]`; new keys and values a `Store` of R lanes and
    one position; keys and the like as in `Store`, F and the like as in `Slots`, y float32 `[R, H, K]`.
    """
    segment_ptr = segments_ptr + tl.program_id(0) * 4
    lane, row = tl.load(segment_ptr).to(tl.int64), tl.load(segment_ptr + 1).to(tl.int64)
    n_rows, position = tl.load(segment_ptr + 2), tl.load(segment_ptr + 3)
    i_m, i_c = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_C)
    m_m = i_m < GROUP
    own = tl.where(m_m, 0, -1)
    forgotten_ptr += lane * capacity
    places_ptr += lane * capacity
    if position == 0:
        i_slot = tl.arange(0, BLOCK_SLOTS)
        tl.store(forgotten_ptr + i_slot, tl.zeros((BLOCK_SLOTS,), tl.int32) + cutoff, mask=i_slot < capacity)
        tl.store(used_ptr + lane, 0)
        tl.debug_barrier()
    for i in range(n_rows):
        i_row = row + i
        slot, end = admit(forgotten_ptr, places_ptr, used_ptr + lane, position + i, cutoff, n_slots, BLOCK_SLOTS)
        keep(
            (new_keys_ptr, new_key_scale_ptr, new_values_ptr, new_value_scale_ptr),
            (keys_ptr, key_scale_ptr, values_ptr, value_scale_ptr),
            i_row, lane, slot, n_kv_heads, padded, capacity, i_c,
        )  # fmt: skip
        tl.debug_barrier()
        for reversed_head in range(n_kv_heads):
            i_head = n_kv_heads - 1 - reversed_head
            o_query = (i_row * n_kv_heads + i_head) * GROUP + i_m
            m_q = m_m[:, None] & (i_c < padded)[None, :]
            q = tl.load(q_ptr + o_query[:, None] * padded + i_c[None, :], mask=m_q, other=0)
            z = tl.load(q_scale_ptr + o_query, mask=m_m, other=0.0) * scale
            o_head = (lane * n_kv_heads + i_head) * capacity
            y = attend(
                q, z, own, own, keys_ptr + o_head * padded, key_scale_ptr + o_head, values_ptr + o_head * padded,
                value_scale_ptr + o_head, forgotten_ptr, cutoff, table_ptr, 0, end, padded, capacity, i_c,
                True, BLOCK_M, BLOCK_C,
            )  # fmt: skip
            tl.store(y_ptr + o_query[:, None] * width + i_c[None, :], y, mask=m_m[:, None] & (i_c < width)[None, :])
            if i_head == 0:
                # Head 0 comes last, since all heads attend by F as it was before.
                tl.debug_barrier()
                select(
                    q, z, keys_ptr + o_head * padded, key_scale_ptr + o_head, forgotten_ptr, places_ptr, slot, end,
                    cutoff, padded, i_c, PROTECT_FIRST, MASK_SELF,
                )  # fmt: skip
        tl.debug_barrier()


def selective_attention(
    q: torch.Tensor,
    q_scale: torch.Tensor,
    segments: torch.Tensor,
    new: Store,
    store: Store,
    slots: Slots,
    heads: Heads,
    scale: float,
    rules: Rules,
) -> torch.Tensor:
    """Keep each row's quantised key and value, attend with its queries int8 `[R, H, Kp]`, and let head 0 forget.

    Args:
        q: queries.
        q_scale: their scales, float32 `[R, H]`.
        segments: int32 `[n, 4]`; one at position 0 begins its lane anew. Rows of none give zeros.
        new: keys and values of the rows, a lane each.
        store: of the layer.
        slots: of the layer.
        heads: how many, and how wide.
        scale: what scores are multiplied by.
        rules: of the selection.

    Returns:
        float32 `[R, H * K]`.

    Bit-equal to `llmzip.exact.reference.attention_scores`, `forget`, `mix_values`, `select` and `least_needed`, row by
    row.
    """
    y = torch.zeros((len(q), heads.n_heads * heads.width), dtype=torch.float32, device=q.device)
    group, capacity = heads.n_heads // heads.n_kv_heads, store.keys.shape[2]
    block_m = max(16, power_of_two(group))
    selective_attention_kernel[(len(segments),)](
        q, q_scale, segments, *new, *store, slots.forgotten, slots.places, slots.used, exp2_on(q.device), y, scale,
        rules.cutoff, slots.n_slots, heads.n_kv_heads, heads.width, heads.padded, capacity,
        PROTECT_FIRST=rules.protect_first, MASK_SELF=rules.mask_self, GROUP=group, BLOCK_SLOTS=power_of_two(capacity),
        BLOCK_M=block_m, BLOCK_C=power_of_two(max(32, heads.padded)), num_warps=4, num_stages=stages(block_m), **EXACT,
    )  # fmt: skip
    return y
