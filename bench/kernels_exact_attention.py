# ruff: noqa: TID253
"""Attention of the exact engine, of windows and of steps, selective or not; see `kernels_exact`.

Imports torch and Triton, so it is loaded lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench import kernels_eager as eager
from bench.kernels_exact import Array, ExactCase, bytes_of, floats, host, integers, some_rows
from llmzip.exact import reference
from llmzip.exact.matrix import ONE_LIMB, Rows
from llmzip_kernels import attention as attending
from llmzip_kernels.activation import exp2_on
from llmzip_kernels.heads import Heads, Store
from llmzip_kernels.launching import to_device


class Shape(NamedTuple):
    """Lanes that each have `length` positions; the rows are all of them, or the last of each lane in a step."""

    n_lanes: int
    length: int
    heads: Heads
    window: int
    step: bool

    def __str__(self) -> str:
        kind = "step" if self.step else "windows"
        local = f", the last {self.window}" if self.window else ""
        heads = self.heads
        return f"{kind}, L{self.n_lanes} T{self.length} H{heads.n_heads}/{heads.n_kv_heads} K{heads.width}{local}"

    @property
    def rows_each(self) -> int:
        """Of a lane."""
        return 1 if self.step else self.length

    @property
    def seen_each(self) -> int:
        """Pairs of a query and a key of one lane and head."""
        counts = np.arange(1, self.length + 1)[-self.rows_each :]
        return int(np.minimum(counts, self.window or self.length).sum())


_GROUPED = Heads(9, 3, 64)
_SHAPES = [
    Shape(8, 1024, _GROUPED, 0, False), Shape(8, 1024, _GROUPED, 512, False), Shape(8, 1024, Heads(8, 8, 64), 0, False),
    Shape(512, 512, _GROUPED, 0, True), Shape(512, 512, _GROUPED, 128, True),
]  # fmt: skip
_SMALL_SHAPES = [
    Shape(2, 70, Heads(4, 2, 16), 0, False), Shape(2, 70, Heads(2, 2, 16), 9, False),
    Shape(3, 70, Heads(6, 2, 16), 0, True), Shape(3, 70, Heads(6, 2, 16), 9, True),
]  # fmt: skip


def attention(device: str, small: bool) -> Iterator[ExactCase]:
    """Grouped heads or one of keys for each of queries, all that is before a row or the latest."""
    for shape in _SMALL_SHAPES if small else _SHAPES:
        heads, n_rows = shape.heads, shape.n_lanes * shape.rows_each
        scale = float(np.float32(heads.width**-0.5))
        x = floats(device, n_rows, heads.n_heads, heads.width)
        q, q_scale = eager.quantised(x, ONE_LIMB)
        q = q.to(torch.int8)
        store, tiles = _random_store(device, shape), to_device(_tiles(shape))
        tail, rows = slice(shape.length - shape.rows_each, shape.length), some_rows(n_rows)
        grouped, z = _by_head(shape, q), _by_head(shape, (q_scale * scale)[..., None])[..., 0]
        seen = _seen(shape, device)[tail].repeat(heads.n_heads // heads.n_kv_heads, 1)
        keys, key_scale, values, value_scale = store
        cache = (keys[:, :, : shape.length], key_scale[:, :, : shape.length])
        mixed = (values[..., : shape.length], value_scale[:, :, : shape.length])
        moved = shape.n_lanes * heads.n_kv_heads * (shape.window or shape.length if shape.step else shape.length)
        yield ExactCase(
            f"attention of {shape}",
            "the same integers, scores in memory; SDPA: attention in bfloat16 over as many keys, not exact",
            partial(attending.attention, q, q_scale, tiles, store, heads, scale, shape.window, step=shape.step),
            lambda y: (y,),
            rows,
            partial(_attended, shape, x, store, scale, rows),
            partial(_eager_attention, shape),
            (grouped, z, *cache, *mixed, seen, exp2_on(q.device)),
            bytes_of(q, q_scale, tiles) + 4 * q.numel() + moved * (2 * heads.width + 8),
            # Scores, and values mixed by two limbs.
            2 * 3 * heads.width * shape.n_lanes * heads.n_heads * shape.seen_each,
            others={"SDPA": _float_attention(device, shape)},
            runs=2 if not shape.step else 5,
        )


def _by_head(shape: Shape, x: Tensor) -> Tensor:
    """From rows `[L * T, H, K]` to `[L, Hk, G * T, K]`, a lane's rows of a head side by side."""
    n_kv_heads = shape.heads.n_kv_heads
    parts = x.view(shape.n_lanes, shape.rows_each, n_kv_heads, -1, x.shape[2]).permute(0, 2, 3, 1, 4)
    return parts.reshape(shape.n_lanes, n_kv_heads, -1, x.shape[2])


def _random_store(device: str, shape: Shape) -> Store:
    """Caches of random integers; what is beyond the lanes' length is not read, or not seen."""
    heads, capacity = shape.heads, -(-shape.length // 64) * 64
    keys = integers(device, -127, 128, shape.n_lanes, heads.n_kv_heads, capacity, heads.padded, dtype=torch.int8)
    scales = floats(device, 2, shape.n_lanes, heads.n_kv_heads, capacity).abs() / 64
    return Store(keys, scales[0], keys.flip(0).mT.contiguous(), scales[1])


def _tiles(shape: Shape) -> Array:
    """What the kernel is told of lanes, rows and positions."""
    lanes = np.arange(shape.n_lanes, dtype=np.int32)
    first = np.full_like(lanes, shape.length - shape.rows_each)
    segments = np.stack([lanes, lanes * shape.rows_each, np.full_like(lanes, shape.rows_each), first], axis=1)
    return attending.cut(segments, attending.rows_together(shape.heads, step=shape.step))


def _seen(shape: Shape, device: str) -> Tensor:
    """Which keys each query may see, bool `[T, T]`."""
    index = torch.arange(shape.length, device=device)
    distance = index[:, None] - index[None, :]
    return (distance >= 0) & (distance < (shape.window or shape.length))


def _attended(shape: Shape, x: Tensor, store: Store, scale: float, rows: slice) -> Sequence[Array]:
    heads, found = shape.heads, []
    group = heads.n_heads // heads.n_kv_heads
    for row in range(len(x))[rows]:
        lane, turn = divmod(row, shape.rows_each)
        position = shape.length - shape.rows_each + turn
        y = []
        for head in range(heads.n_kv_heads):
            keys = Rows(host(store.keys[lane, head]), host(store.key_scale[lane, head]), ONE_LIMB)
            values = Rows(host(store.values[lane, head].mT), host(store.value_scale[lane, head]), ONE_LIMB)
            q = host(x[row, head * group : (head + 1) * group])
            y.append(reference.attention(q, keys, values, position, scale, shape.window))
        found.append(np.concatenate(y).reshape(-1))
    return (np.stack(found),)


def _eager_attention(shape: Shape, *inputs: Tensor) -> Sequence[Tensor]:
    heads = shape.heads
    y = eager.attention(*inputs).view(shape.n_lanes, heads.n_kv_heads, -1, shape.rows_each, heads.width)
    return (y.permute(0, 3, 1, 2, 4).reshape(shape.n_lanes * shape.rows_each, -1),)


def _float_attention(device: str, shape: Shape) -> partial[Tensor]:
    """PyTorch's own, of random numbers; where only the latest keys are seen, by a mask."""
    heads = shape.heads
    sizes = ((heads.n_heads, shape.rows_each), (heads.n_kv_heads, shape.length), (heads.n_kv_heads, shape.length))
    q, k, v = (floats(device, shape.n_lanes, *size, heads.width).to(torch.bfloat16) for size in sizes)
    grouped = heads.n_heads > heads.n_kv_heads
    mask = _seen(shape, device)[-shape.rows_each :] if shape.window else None
    causal = mask is None and not shape.step
    return partial(
        functional.scaled_dot_product_attention, q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )


OPERATIONS = (attention,)
