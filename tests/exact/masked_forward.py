"""A whole window at once, with masks and no cache: what ARITHMETIC.md, sections 4.8 and 6, means.

Only for the models that llmzip trains: RMS norms, rotary positions, a tied head, one block after the other.
F is the sum over all earlier queries, also of keys that are gone; who is gone is kept in Python's sets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.exact import reference, tables
from llmzip.exact.matrix import ONE_LIMB, Rows
from llmzip.exact.spec import ModelSpec, Selection
from llmzip.exact.transformer import Parameters

Floats = NDArray[np.float32]

MULTIPLIERS = (2654435761, 2246822507, 3266489917, 668265263)


class Forgetting(NamedTuple):
    """What one layer forgot: `f[q][k]` in units of 1/1024 nat, not held at the cutoff, and what each query saw."""

    f: list[list[int]]
    seen: list[set[int]]


def masked_hidden(
    spec: ModelSpec,
    parameters: Parameters,
    tokens: NDArray[np.int32],
    prefix: Floats | None = None,
    shifts: Floats | None = None,
) -> tuple[Floats, list[Forgetting]]:
    """Rows `[T, D]` after the final norm, and what each layer forgot; a prefix stands behind the first token."""
    x = embed(spec, parameters, tokens) if prefix is None else _embed_with(spec, parameters, tokens, prefix)
    layers = []
    for layer in range(spec.n_layers):
        at = f"layers.{layer}."
        x = x if shifts is None else x + shifts[layer]
        attended, forgetting = _attend(spec, parameters, layer, _norm(spec, parameters, at + "attention_norm", x))
        x = x + _linear(parameters, at + "o", attended)
        x = x + _mlp(spec, parameters, at, _norm(spec, parameters, at + "mlp_norm", x))
        layers.append(forgetting)
    x = x if shifts is None else x + shifts[-1]
    return _norm(spec, parameters, "final_norm", x), layers


def _embed_with(spec: ModelSpec, parameters: Parameters, tokens: NDArray[np.int32], prefix: Floats) -> Floats:
    """Rows of a window with the prefix behind its first token; for runs of tokens it is BOS."""
    bos = np.full(len(prefix), spec.bos_id, np.int32)
    with_prefix = np.concatenate([tokens[:1], bos, tokens[1:]])
    x = _look_up(parameters, "embed", with_prefix.tolist())
    x[1 : 1 + len(prefix)] = prefix
    return x + _runs(spec, parameters, with_prefix) if spec.ngrams else x


def embed(spec: ModelSpec, parameters: Parameters, tokens: NDArray[np.int32]) -> Floats:
    """Rows `[T, D]` at the entry of the first layer."""
    x = _look_up(parameters, "embed", tokens.tolist())
    return x + _runs(spec, parameters, tokens) if spec.ngrams else x


def _runs(spec: ModelSpec, parameters: Parameters, tokens: NDArray[np.int32]) -> Floats:
    assert spec.ngrams is not None
    parts = []
    for n in range(2, spec.ngrams.tables + 2):
        rows = [run_row(run_at(spec, tokens, p, n), spec.ngrams.rows) for p in range(len(tokens))]
        parts.append(_look_up(parameters, f"ngram{n}", rows))
    y: Floats = np.concatenate(parts, axis=1)
    return y


def run_at(spec: ModelSpec, tokens: NDArray[np.int32], position: int, n: int) -> list[int]:
    """The `n` tokens up to a position, the last one first, as integers of Python."""
    return [int(tokens[position - i]) if position >= i else spec.bos_id for i in range(n)]


def run_row(run: list[int], rows: int) -> int:
    """The row of a run in a table, by integers of any size."""
    h = 0
    for token, multiplier in zip(run, MULTIPLIERS, strict=False):
        h ^= token * multiplier % 2**32
    return h * MULTIPLIERS[0] % 2**32 * rows // 2**32


def forget_by_sets(selected: list[list[int]], selection: Selection, budget: int) -> Forgetting:
    """Sum up what each query selects of each key, and drop what may be seen no more.

    Args:
        selected: for each query what it selects of the keys up to its own, `[T][q + 1]`.
        selection: cutoff and rules.
        budget: of the layer.
    """
    T = len(selected)
    spared = [[_is_spared(q, k, selection) for k in range(q + 1)] for q in range(T)]
    f = [[sum(selected[j][k] for j in range(k, q) if not spared[j][k]) for k in range(q + 1)] for q in range(T)]
    seen: list[set[int]] = []
    for q in range(T):
        left = {k for k in (seen[-1] if seen else set()) if f[q][k] < selection.cutoff}
        if budget and len(left) >= budget:
            left.remove(max(left, key=lambda k, row=f[q]: (row[k], k)))  # type: ignore[misc]
        seen.append(left | {q})
    return Forgetting(f, seen)


def _is_spared(query: int, key: int, selection: Selection) -> bool:
    return (selection.protect_first and key == 0) or (not selection.mask_self and key == query)


def _attend(spec: ModelSpec, parameters: Parameters, layer: int, x: Floats) -> tuple[Floats, Forgetting]:
    at, T = f"layers.{layer}.", len(x)
    cos, sin = (table[:T] for table in tables.spec_rotary_tables(spec, False, T))
    q, k, v = (_linear(parameters, at + name, x).reshape(T, -1, spec.head_width) for name in "qkv")
    q, k = reference.rotate(q, cos, sin), reference.rotate(k, cos, sin)
    scores = np.zeros((spec.n_heads, T, T), np.float32)
    group = spec.n_heads // spec.n_kv_heads
    for head in range(spec.n_heads):
        keys = reference.quantise_rows(k[:, head // group], ONE_LIMB)
        scores[head] = reference.attention_scores(q[:, head], keys, spec.attention_scale)
    forgetting = _forget(spec, layer, scores[0])
    y = np.zeros((T, spec.n_heads, spec.head_width), np.float32)
    for head in range(spec.n_heads):
        values = reference.quantise_rows(v[:, head // group], ONE_LIMB)
        for i in range(T):
            y[i, head] = _mix(scores[head, i], forgetting, i, values)
    return y.reshape(T, -1), forgetting


def _forget(spec: ModelSpec, layer: int, scores: Floats) -> Forgetting:
    """What the selecting head's scores `[T, T]` come to."""
    T = len(scores)
    if spec.selection is None:
        return Forgetting([[0] * (q + 1) for q in range(T)], [set(range(q + 1)) for q in range(T)])
    cutoff = spec.selection.cutoff
    selected = [[round(min(max(float(scores[q, k]), 0.0) * 1024, cutoff)) for k in range(q + 1)] for q in range(T)]
    return forget_by_sets(selected, spec.selection, spec.selection.budget(layer))


def _mix(scores: Floats, forgetting: Forgetting, i: int, values: Rows) -> Floats:
    """Values mixed by one query: all keys take part, the unseen ones with a score below all others."""
    masked = np.full(len(scores), -np.inf, np.float32)
    for k in forgetting.seen[i]:
        masked[k] = scores[k] - np.float32(forgetting.f[i][k] / 1024)
    y: Floats = reference.mix_values(masked[None, :], values)[0]
    return y


def _mlp(spec: ModelSpec, parameters: Parameters, at: str, x: Floats) -> Floats:
    up = _linear(parameters, at + "up", x)
    act = reference.ACTIVATIONS[spec.activation]
    h = act(up) if spec.mlp == "plain" else act(_linear(parameters, at + "gate", x)) * up
    return _linear(parameters, at + "down", h)


def _norm(spec: ModelSpec, parameters: Parameters, name: str, x: Floats) -> Floats:
    return reference.rms_norm(x, parameters.vectors[name], spec.norm_eps)


def _linear(parameters: Parameters, name: str, x: Floats) -> Floats:
    matrix = parameters.matrices[name]
    return reference.linear(reference.quantise_rows(x, matrix.limit), matrix)


def _look_up(parameters: Parameters, name: str, rows: list[int]) -> Floats:
    matrix: Any = parameters.matrices[name]
    y: Floats = matrix.q[rows].astype(np.float32) * matrix.scale[rows][:, None]
    return y
