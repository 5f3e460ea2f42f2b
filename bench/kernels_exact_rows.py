# ruff: noqa: TID253
"""Operations of the exact engine that take each row by itself: norms, activations, heads; see `kernels_exact`.

Imports torch and Triton, so it is loaded lazily.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench import kernels_eager as eager
from bench.kernels_exact import (
    Array,
    ExactCase,
    bytes_of,
    floats,
    host,
    in_words,
    limbs_first,
    limbs_of,
    some_rows,
)
from llmzip.exact import reference
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS
from llmzip.exact.tables import rotary_tables
from llmzip_kernels import activation, heads, norm, quantise
from llmzip_kernels.activation import exp2_on, normal_on
from llmzip_kernels.heads import HeadNorms, Heads, Rotation

EPS = float(np.float32(1e-5))
# Rows, and their widths: those of a model, of its MLP, of its heads.
ROWS, WIDTH, MLP_WIDTH, HEADS = 32768, 576, 1536, Heads(9, 3, 64)
SMALL_ROWS, SMALL_WIDTH, SMALL_HEADS = 5, 65, Heads(4, 2, 16)


def quantising(device: str, small: bool) -> Iterator[ExactCase]:
    """Rows to int8, or to two of them."""
    n_rows, width = (SMALL_ROWS, SMALL_WIDTH) if small else (ROWS, WIDTH)
    x, rows = floats(device, n_rows, width), some_rows(n_rows)
    for limit in (ONE_LIMB, TWO_LIMBS):
        yield ExactCase(
            f"quantise R{n_rows} D{width}, {in_words(limit)}",
            "the same integers, operation by operation",
            partial(quantise.quantise_rows, x, limit),
            partial(limbs_first, width=width),
            rows,
            partial(_quantised, host(x[rows]), limit),
            partial(_eager_quantised, limit),
            (x,),
            bytes_of(x) + _quantised_bytes(n_rows, width, limit),
        )


def norms(device: str, small: bool) -> Iterator[ExactCase]:
    """RMS and layer norms, into floats that are added to a residual, or quantised."""
    n_rows, width = (SMALL_ROWS, SMALL_WIDTH) if small else (ROWS, WIDTH)
    x, residual = floats(device, n_rows, width), floats(device, n_rows, width, seed=1)
    weight, bias, rows = floats(device, width, seed=2), floats(device, width, seed=3), some_rows(n_rows)
    for name, shift in (("RMS norm", None), ("layer norm", bias)):
        normed = partial(_normed, host(x[rows]), host(weight), None if shift is None else host(shift))
        yield ExactCase(
            f"{name} and residual R{n_rows} D{width}",
            "the same numbers, operation by operation",
            partial(norm.norm, x, weight, shift, EPS, residual),
            lambda y: (y,),
            rows,
            partial(lambda normed, residual: (residual + normed(),), normed, host(residual[rows])),
            _eager_norm,
            (x, weight, shift, residual),
            3 * bytes_of(x),
        )
        yield ExactCase(
            f"{name} and quantise R{n_rows} D{width}, two limbs",
            "the same integers, operation by operation",
            partial(norm.norm_rows, x, weight, shift, EPS, TWO_LIMBS),
            partial(limbs_first, width=width),
            rows,
            partial(lambda normed: _quantised(normed(), TWO_LIMBS), normed),
            _eager_norm_rows,
            (x, weight, shift),
            bytes_of(x) + _quantised_bytes(n_rows, width, TWO_LIMBS),
        )


def activations(device: str, small: bool) -> Iterator[ExactCase]:
    """Gated and plain, into floats or quantised."""
    n_rows, width = (SMALL_ROWS, SMALL_WIDTH) if small else (ROWS, MLP_WIDTH)
    both, rows = floats(device, n_rows, 2 * width), some_rows(n_rows)
    gate, up = both[:, :width], both[:, width:]
    for kind in activation.KINDS:
        # The MLPs that models have: gated ones of silu and the tanh form, plain ones of the others.
        gated = kind in ("silu", "gelu_tanh")
        table = normal_on(both.device) if kind == "gelu" else exp2_on(both.device)
        activated = partial(_activated, kind, host(gate[rows]), host(up[rows]) if gated else None)
        yield ExactCase(
            f"{kind}{', gated' if gated else ''}, and quantise R{n_rows} F{width}, two limbs",
            "the same integers, operation by operation",
            partial(activation.activate_rows, kind, gate, up if gated else None, TWO_LIMBS),
            partial(limbs_first, width=width),
            rows,
            partial(lambda activated: _quantised(activated(), TWO_LIMBS), activated),
            partial(_eager_activated_rows, kind),
            (gate, up if gated else None, table),
            bytes_of(gate, up if gated else None) + _quantised_bytes(n_rows, width, TWO_LIMBS),
        )
    yield ExactCase(
        f"silu, gated R{n_rows} F{width}",
        "the same numbers, operation by operation",
        partial(activation.activate, "silu", gate, up),
        lambda y: (y,),
        rows,
        lambda: (_activated("silu", host(gate[rows]), host(up[rows])),),
        lambda gate, up, table: (eager.activation("silu", gate, table) * up,),
        (gate, up, exp2_on(both.device)),
        bytes_of(gate, up, gate),
    )


def rotations(device: str, small: bool) -> Iterator[ExactCase]:
    """Heads turned by the angles of their positions."""
    n_rows, shape = (SMALL_ROWS, SMALL_HEADS) if small else (ROWS, HEADS)
    x, rows = floats(device, n_rows, shape.n_heads, shape.width), some_rows(n_rows)
    positions, rotation = _angles(device, n_rows, shape)
    cos, sin = (host(angles)[host(positions[rows])] for angles in rotation)
    yield ExactCase(
        f"rotate R{n_rows} H{shape.n_heads} K{shape.width}",
        "the same numbers, operation by operation",
        partial(heads.rotate, x, rotation, positions),
        lambda y: (y,),
        rows,
        lambda: (reference.rotate(host(x[rows]), cos, sin),),
        lambda *inputs: (eager.rotate(*inputs),),
        (x, *rotation, positions),
        bytes_of(x, x, *rotation, positions),
    )


def quantised_heads(device: str, small: bool) -> Iterator[ExactCase]:
    """Queries, keys and values, rotated, normed by heads or not, and put into a cache, lane after lane."""
    n_rows, shape = (SMALL_ROWS, SMALL_HEADS) if small else (ROWS, HEADS)
    capacity, n_all = min(n_rows, 1024), shape.n_heads + 2 * shape.n_kv_heads
    x, rows = floats(device, n_rows, n_all * shape.width), some_rows(n_rows)
    index = torch.arange(n_rows, dtype=torch.int32, device=device)
    lanes, places = index // capacity, index % capacity
    positions, rotation = _angles(device, n_rows, shape)
    store = heads.new_store(-(-n_rows // capacity), shape, capacity, x.device)
    query_norm, key_norm = floats(device, 2, shape.width, seed=4)
    for normed in (False, True):
        head_norms = (query_norm, key_norm) if normed else ()
        yield ExactCase(
            f"{'normed heads' if normed else 'heads'} R{n_rows} H{shape.n_heads}/{shape.n_kv_heads} K{shape.width}",
            "the same integers, operation by operation, put into such a cache",
            partial(
                heads.quantise_heads,
                x,
                shape,
                HeadNorms(query_norm, key_norm, EPS) if normed else None,
                rotation,
                positions,
                store,
                lanes,
                places,
            ),
            lambda q: (*q, *_kept(store, lanes, places)),
            rows,
            partial(_expected_heads, shape, head_norms, rotation, positions[rows], x[rows]),
            partial(_eager_heads, shape, head_norms),
            (x, rotation.cos, rotation.sin, positions, lanes.long(), places.long(), store),
            bytes_of(x, *rotation, positions, lanes, places) + n_rows * n_all * (shape.width + 4),
        )


def _angles(device: str, n_rows: int, shape: Heads) -> tuple[Tensor, Rotation]:
    """Positions of rows, and tables of angles for all of them."""
    n_positions = min(n_rows, 1024)
    cos, sin = (
        torch.from_numpy(table.copy()).to(device) for table in rotary_tables(shape.width, 1e4, None, n_positions)
    )
    return torch.arange(n_rows, dtype=torch.int32, device=device) % n_positions, Rotation(cos, sin)


def _kept(store: heads.Store, lanes: Tensor, places: Tensor) -> Sequence[Tensor]:
    """What a cache has at places of lanes, a row each."""
    lanes, places = lanes.long(), places.long()
    keys, values = store.keys[lanes, :, places], store.values[lanes, :, :, places]
    return keys, store.key_scale[lanes, :, places], values, store.value_scale[lanes, :, places]


def _expected_heads(
    shape: Heads, head_norms: Sequence[Tensor], rotation: Rotation, positions: Tensor, x: Tensor
) -> Sequence[Array]:
    parts = host(x).reshape(len(x), -1, shape.width)
    ends = (0, shape.n_heads, shape.n_heads + shape.n_kv_heads, parts.shape[1])
    cos, sin = (host(angles)[host(positions)] for angles in rotation)
    found: list[Array] = []
    for i, (begin, end) in enumerate(itertools.pairwise(ends)):
        part = parts[:, begin:end]
        if head_norms and i < 2:
            part = reference.rms_norm(part.reshape(-1, shape.width), host(head_norms[i]), EPS).reshape(part.shape)
        if i < 2:
            part = reference.rotate(part, cos, sin)
        rows = reference.quantise_rows(part.reshape(-1, shape.width), ONE_LIMB)
        found += [rows.q.astype("int8").reshape(part.shape), rows.scale.reshape(part.shape[:2])]
    return found


def _eager_heads(
    shape: Heads, head_norms: Sequence[Tensor], x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor,
    lanes: Tensor, places: Tensor, store: heads.Store,
) -> Sequence[Tensor]:  # fmt: skip
    sizes = [shape.n_heads, shape.n_kv_heads, shape.n_kv_heads]
    parts = torch.split(x.view(len(x), -1, shape.width), sizes, dim=1)
    found: list[Tensor] = []
    for i, part in enumerate(parts):
        y = part
        if head_norms and i < 2:
            y = eager.rms_norm(y, head_norms[i], EPS)
        if i < 2:
            y = eager.rotate(y, cos, sin, positions)
        q, scale = eager.quantised(y, ONE_LIMB)
        found += [q.to(torch.int8), scale]
    store.keys[lanes, :, places], store.key_scale[lanes, :, places] = found[2], found[3]
    store.values[lanes, :, :, places], store.value_scale[lanes, :, places] = found[4], found[5]
    return found


def _quantised(x: Array, limit: int) -> Sequence[Array]:
    return limbs_of(reference.quantise_rows(x, limit))


def _quantised_bytes(n_rows: int, width: int, limit: int) -> int:
    return n_rows * (width * (1 if limit <= ONE_LIMB else 2) + 4)


def _normed(x: Array, weight: Array, bias: Array | None) -> Array:
    return reference.rms_norm(x, weight, EPS) if bias is None else reference.layer_norm(x, weight, bias, EPS)


def _activated(kind: str, gate: Array, up: Array | None) -> Array:
    y = reference.ACTIVATIONS[kind](gate)
    return y if up is None else y * up


def _eager_quantised(limit: int, x: Tensor) -> Sequence[Tensor]:
    q, scale = eager.quantise_rows(x, limit)
    return q.movedim(1, 0), scale


def _eager_norm(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Sequence[Tensor]:
    y = eager.rms_norm(x, weight, EPS) if bias is None else eager.layer_norm(x, weight, bias, EPS)
    return (y if residual is None else residual + y,)


def _eager_norm_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Sequence[Tensor]:
    return _eager_quantised(TWO_LIMBS, _eager_norm(x, weight, bias, None)[0])


def _eager_activated_rows(kind: str, gate: Tensor, up: Tensor | None, table: Tensor) -> Sequence[Tensor]:
    y = eager.activation(kind, gate, table)
    return _eager_quantised(TWO_LIMBS, y if up is None else y * up)


OPERATIONS = (quantising, norms, activations, rotations, quantised_heads)
