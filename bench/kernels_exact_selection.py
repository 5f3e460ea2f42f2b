# ruff: noqa: TID253
"""Selective attention of the exact engine over pruned caches; see `kernels_exact`.

Imports torch and Triton, so it is loaded lazily.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import kernels_eager as eager
from bench.kernels_exact import Array, ExactCase, floats, host
from llmzip.exact.reference_backend import ReferenceBackend, SelectiveReferenceCache
from llmzip.exact.spec import MAX_WINDOW, SELECTION_STEPS, ModelSpec
from llmzip.exact.spec import Selection as Rules
from llmzip_kernels import heads as headed
from llmzip_kernels import selection
from llmzip_kernels.activation import exp2_on
from llmzip_kernels.heads import Heads, Store
from llmzip_kernels.launching import round_up, to_device
from llmzip_kernels.mixing import BLOCK_S

_CUTOFF = 8 * SELECTION_STEPS
_FREE = (1 << 31) - 1


class Shape(NamedTuple):
    """Lanes, the positions that each has read before, those that it reads, and the slots of its cache."""

    n_lanes: int
    n_before: int
    n_read: int
    n_slots: int
    heads: Heads

    def __str__(self) -> str:
        heads = self.heads
        kind = "step" if self.n_read == 1 else f"{self.n_read} positions"
        return f"{kind}, L{self.n_lanes} of {self.n_slots} slots H{heads.n_heads}/{heads.n_kv_heads} K{heads.width}"


_SHAPES = [Shape(512, 300, 1, 256, Heads(9, 3, 64)), Shape(128, 0, 64, 256, Heads(9, 3, 64))]
_SMALL_SHAPES = [Shape(2, 3, 1, 2, Heads(2, 1, 16)), Shape(2, 0, 3, 2, Heads(4, 2, 16))]


class State:
    """What lanes remember after the positions before, all of them read by the kernel from their beginnings.

    Args:
        shape: of the lanes.
        x: queries, keys and values side by side, of all positions `[L, T, (H + 2 * Hk) * K]`.
    """

    def __init__(self, shape: Shape, x: Tensor) -> None:
        self.shape = shape
        self.scale = float(np.float32(shape.heads.width**-0.5))
        capacity = round_up(shape.n_slots, BLOCK_S)
        self.store = headed.new_store(shape.n_lanes, shape.heads, capacity, x.device)
        room = torch.full((shape.n_lanes, capacity), _CUTOFF, dtype=torch.int32, device=x.device)
        self.slots = selection.Slots(room, torch.zeros_like(room), torch.zeros_like(room[:, 0]), shape.n_slots)
        self.table = exp2_on(x.device)
        self.read(x[:, : shape.n_before], 0)
        self.batch = self._batch(x[:, shape.n_before :], shape.n_before)

    def read(self, x: Tensor, first: int) -> Tensor:
        """Attention of rows `[L, T, ...]` at positions from `first` on."""
        return self._attend(self._batch(x, first))

    def again(self) -> Tensor:
        """Of the rows after those before: at first as it should be, then over what the last time has left."""
        return self._attend(self.batch)

    def _batch(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor, Store]:
        """Quantised queries, segments, and quantised keys and values, as the kernel takes them."""
        n_lanes, n, heads = self.shape.n_lanes, x.shape[1], self.shape.heads
        index = np.arange(n_lanes, dtype=np.int32)
        segments = np.stack([index, index * n, np.full_like(index, n), np.full_like(index, first)], axis=1)
        own = torch.arange(n_lanes * n, dtype=torch.int32, device=x.device)
        new = headed.new_rows_store(n_lanes * n, heads, x.device)
        flat = x.reshape(n_lanes * n, x.shape[2])
        q = headed.quantise_heads(flat, heads, None, None, own, new, own, torch.zeros_like(own))
        return (*q, to_device(segments), new)

    def _attend(self, batch: tuple[Tensor, Tensor, Tensor, Store]) -> Tensor:
        rules = selection.Rules(_CUTOFF, True, False)
        return selection.selective_attention(*batch, self.store, self.slots, self.shape.heads, self.scale, rules)


def selective_attention(device: str, small: bool) -> Iterator[ExactCase]:
    """A step of lanes whose caches are full, and windows from their beginnings, row after row."""
    for shape in _SMALL_SHAPES if small else _SHAPES:
        heads = shape.heads
        n_all = (heads.n_heads + 2 * heads.n_kv_heads) * heads.width
        x = floats(device, shape.n_lanes, shape.n_before + shape.n_read, n_all)
        own = State(shape, x)
        other = copy.deepcopy(own)
        moved, operations = _work(shape)
        yield ExactCase(
            f"selective attention of {shape}",
            "the same integers, lanes together, row after row; scores over all slots, in float32",
            own.again,
            lambda y: (y,),
            slice(0, shape.n_read),
            partial(_selected, shape, x[0], own.scale),
            partial(_eager_rows, other),
            (),
            moved,
            operations,
            # A loop of a launch for each operation and row becomes a program that takes minutes to compile.
            compiles=shape.n_read == 1,
            runs=5 if shape.n_read == 1 else 1,
        )


def _work(shape: Shape) -> tuple[int, int]:
    """Bytes that a call moves at least, its caches once, and operations on what is in them by then."""
    heads, n_rows = shape.heads, shape.n_lanes * shape.n_read
    filled = np.minimum(np.arange(shape.n_before, shape.n_before + shape.n_read) + 1, shape.n_slots)
    cache = shape.n_lanes * int(filled[-1]) * (heads.n_kv_heads * (2 * heads.width + 8) + 12)
    rows = n_rows * (heads.n_heads * (5 * heads.width + 4) + heads.n_kv_heads * (2 * heads.width + 8))
    return cache + rows, 6 * heads.width * shape.n_lanes * heads.n_heads * int(filled.sum())


def _selected(shape: Shape, x: Tensor, scale: float) -> Sequence[Array]:
    """The rows of the first lane, by the reference from its beginning."""
    heads, n = shape.heads, len(x)
    rules = Rules(_CUTOFF, (shape.n_slots,))
    spec = ModelSpec("made", 5, 8, 1, heads.n_heads, heads.n_kv_heads, heads.width, 8, 4096, 0, selection=rules)
    ends = np.cumsum([heads.n_heads * heads.width, heads.n_kv_heads * heads.width])
    q, k, v = np.split(host(x), ends, axis=1)
    segments = np.array([[0, 0, n, 0]], np.int32)
    cache = SelectiveReferenceCache(spec, 1, n)
    y = ReferenceBackend().selective_attention(cache, 0, segments, q.reshape(n, heads.n_heads, -1), k, v, scale)
    return (y.reshape(n, -1)[shape.n_before :],)


def _eager_rows(state: State) -> Sequence[Tensor]:
    """The rows of `state.batch`, one of each lane at a time."""
    q, q_scale, _, new = state.batch
    n_lanes, n = state.shape.n_lanes, state.shape.n_read
    parts = [x.view(n_lanes, n, *x.shape[1:]) for x in (q, q_scale, *new)]
    found = [_eager_row(state, state.shape.n_before + i, *(part[:, i] for part in parts)) for i in range(n)]
    return (torch.stack(found, dim=1).flatten(0, 1),)


def _eager_row(
    state: State, position: int, q: Tensor, q_scale: Tensor, keys: Tensor, key_scale: Tensor, values: Tensor,
    value_scale: Tensor,
) -> Tensor:  # fmt: skip
    """One row `[L, ...]` of each lane: its key takes a slot, its heads attend, head 0 forgets."""
    store, slots, heads = state.store, state.slots, state.shape.heads
    if position == 0:
        slots.forgotten.fill_(_CUTOFF)
    lanes = torch.arange(len(q), device=q.device)
    index = torch.arange(slots.forgotten.shape[1], device=q.device)
    rank = torch.where(slots.forgotten >= _CUTOFF, _FREE - index, slots.forgotten * MAX_WINDOW + slots.places)
    slot = torch.where(index < slots.n_slots, rank, -1).argmax(dim=1)
    store.keys[lanes, :, slot], store.key_scale[lanes, :, slot] = keys[:, :, 0], key_scale[:, :, 0]
    store.values[lanes, :, :, slot], store.value_scale[lanes, :, slot] = values[..., 0], value_scale[:, :, 0]
    taken = index == slot[:, None]
    slots.forgotten.masked_fill_(taken, 0)
    slots.places.masked_fill_(taken, position)
    grouped = q.view(len(q), heads.n_kv_heads, -1, q.shape[2])
    z = (q_scale * state.scale).view(len(q), heads.n_kv_heads, -1)
    raw = eager.scores(grouped, z, store.keys, store.key_scale)
    score = raw - (slots.forgotten.float() * (1 / SELECTION_STEPS))[:, None, None]
    seen = (slots.forgotten < _CUTOFF)[:, None, None].expand_as(score)
    y = eager.mix_values(score, seen, store.values, store.value_scale, state.table)
    spared = (slots.places == 0) | taken
    slots.forgotten.copy_(eager.forget(raw[:, 0, 0], slots.forgotten, spared, _CUTOFF))
    return y.flatten(1)


OPERATIONS = (selective_attention,)
