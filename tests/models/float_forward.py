"""A plain float32 forward pass driven by `ModelSpec` alone: what a spec and its tensors mean, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.spec import SELECTION_STEPS, ModelSpec, RotaryScaling, Selection

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]


def float_logits(spec: ModelSpec, tensors: Tensors, ids: Sequence[int]) -> Floats:
    """Logits after each of `ids`, shape `[T, V]`; the first id is not implied to be BOS."""
    held = dict(tensors)
    x = held["embed.weight"][list(ids)] * np.float32(spec.embedding_scale)
    if spec.learned_positions:
        x = x + held["positions.weight"][: len(ids)]
    if spec.ngrams:
        x = x + np.concatenate([_runs(spec, held, n, ids) for n in range(2, spec.ngrams.tables + 2)], axis=1)
    for layer in range(spec.n_layers):
        x = _block(spec, held, layer, x)
    head = held["embed.weight" if spec.tied_head else "head.weight"]
    return _norm(spec, held, "final_norm", x) @ head.T


def _runs(spec: ModelSpec, tensors: Tensors, n: int, ids: Sequence[int]) -> Floats:
    """Rows of the table for runs of `n` tokens; the row of a run is the highest bits of a word of 32."""
    table, rows = tensors[f"ngram{n}.weight"], []
    for end in range(len(ids)):
        h = 0
        for back, multiplier in enumerate((2654435761, 2246822507, 3266489917, 668265263)[:n]):
            h ^= multiplier * (ids[end - back] if end >= back else spec.bos_id) % 2**32
        rows.append(h * 2654435761 % 2**32 * len(table) >> 32)
    return table[rows]


def _block(spec: ModelSpec, tensors: Tensors, layer: int, x: Floats) -> Floats:
    at = f"layers.{layer}."
    attended = _attention(spec, tensors, layer, _norm(spec, tensors, at + "attention_norm", x))
    if spec.sandwich_norms:
        attended = _norm(spec, tensors, at + "post_attention_norm", attended)
    y = x if spec.parallel_residual else x + attended
    fed = _mlp(spec, tensors, at, _norm(spec, tensors, at + "mlp_norm", y))
    if spec.sandwich_norms:
        fed = _norm(spec, tensors, at + "post_mlp_norm", fed)
    return x + attended + fed


def _attention(spec: ModelSpec, tensors: Tensors, layer: int, x: Floats) -> Floats:
    at = f"layers.{layer}."
    T, K, groups = len(x), spec.head_width, spec.n_heads // spec.n_kv_heads
    q = _linear(tensors, at + "q", x).reshape(T, -1, K)  # [T, H, K]
    k = _linear(tensors, at + "k", x).reshape(T, -1, K)  # [T, Hk, K]
    v = _linear(tensors, at + "v", x).reshape(T, -1, K)
    if spec.qk_norm:
        q = _rms(spec, q) * tensors[at + "q_norm.weight"]
        k = _rms(spec, k) * tensors[at + "k_norm.weight"]
    q, k = _rotate(spec, layer, q), _rotate(spec, layer, k)
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = np.einsum("thk,shk->hts", q, k) * np.float32(spec.attention_scale)
    visible = _visible(spec, layer, T)
    if spec.selection:
        forgotten = _forgotten(spec.selection, np.where(visible, scores[0], 0))
        visible = _kept(spec.selection, layer, forgotten)
        scores = scores - _float32(forgotten)
    scores = np.where(visible, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hts,shk->thk", weights, v).reshape(T, -1)
    return _linear(tensors, at + "o", mixed)


def _visible(spec: ModelSpec, layer: int, T: int) -> NDArray[np.bool_]:
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]
    visible = distance >= 0
    return visible & (distance < spec.local_window) if spec.is_local(layer) else visible


def _forgotten(selection: Selection, scores: Floats) -> NDArray[np.float64]:
    """F in nats, `[T, T]`: what all queries before one selected, by the positive scores of head 0."""
    selected = np.maximum(scores, 0).astype(np.float64)
    if selection.protect_first:
        selected[:, 0] = 0
    if not selection.mask_self:
        np.fill_diagonal(selected, 0)
    forgotten: NDArray[np.float64] = np.vstack([np.zeros(len(scores)), selected[:-1].cumsum(axis=0)])
    return forgotten


def _kept(selection: Selection, layer: int, forgotten: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which keys each query sees: what is beyond the cutoff, or has no room, is gone for all later ones."""
    T, budget = len(forgotten), selection.budget(layer)
    kept, left = np.zeros((T, T), dtype=bool), np.zeros(T, dtype=bool)
    for i in range(T):
        left &= forgotten[i] < selection.cutoff / SELECTION_STEPS
        if budget and left.sum() >= budget:
            left[max(np.flatnonzero(left), key=lambda k, row=forgotten[i]: (row[k], k))] = False  # type: ignore[misc]
        left[i] = True
        kept[i] = left
    return kept


def _rotate(spec: ModelSpec, layer: int, heads: Floats) -> Floats:
    """Rotate channel `i` with channel `i + rotary_width / 2`, for the leading `rotary_width` channels."""
    half = spec.rotary_width // 2
    if not half:
        return heads
    angles = np.arange(len(heads))[:, None] * _rotary_frequencies(spec, layer)
    cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)
    low, high, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin, rest], axis=-1)


def _rotary_frequencies(spec: ModelSpec, layer: int) -> NDArray[np.float64]:
    local = spec.is_local(layer)
    base = spec.local_rotary_base if local else spec.rotary_base
    frequencies = base ** -(np.arange(0, spec.rotary_width, 2) / spec.rotary_width)
    if local or spec.rotary_scaling is None:
        return frequencies
    if spec.rotary_scaling.kind == "linear":
        return frequencies / spec.rotary_scaling.factor
    return _llama3(frequencies, spec.rotary_scaling)


def _llama3(frequencies: NDArray[np.float64], scaling: RotaryScaling) -> NDArray[np.float64]:
    """Divide low frequencies by the factor, keep high ones, and blend in between."""
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    keep = (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor)
    keep = np.clip(keep, 0, 1)
    return frequencies * keep + frequencies / scaling.factor * (1 - keep)


def _mlp(spec: ModelSpec, tensors: Tensors, at: str, x: Floats) -> Floats:
    up = _linear(tensors, at + "up", x)
    if spec.mlp == "gated":
        return _linear(tensors, at + "down", _activation(spec, _linear(tensors, at + "gate", x)) * up)
    return _linear(tensors, at + "down", _activation(spec, up))


def _activation(spec: ModelSpec, x: Floats) -> Floats:
    if spec.activation == "silu":
        return _float32(x / (1 + np.exp(-x)))
    if spec.activation == "relu2":
        return _float32(np.maximum(x, 0) ** 2)
    if spec.activation == "gelu_tanh":
        return _float32(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    erf = np.vectorize(math.erf)
    return _float32(0.5 * x * (1 + erf(x / math.sqrt(2))))


def _norm(spec: ModelSpec, tensors: Tensors, name: str, x: Floats) -> Floats:
    if spec.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    y = _rms(spec, x) * tensors[name + ".weight"]
    return y + tensors[name + ".bias"] if name + ".bias" in tensors else y


def _rms(spec: ModelSpec, x: Floats) -> Floats:
    return _float32(x / np.sqrt((x * x).mean(-1, keepdims=True) + spec.norm_eps))


def _linear(tensors: Tensors, name: str, x: Floats) -> Floats:
    y = x @ tensors[name + ".weight"].T
    return y + tensors[name + ".bias"] if name + ".bias" in tensors else y


def _float32(values: NDArray[np.floating[Any]]) -> Floats:
    return values.astype(np.float32)
