# ruff: noqa: TID253
"""Operations of the exact engine in PyTorch's own: what its kernels are measured against.

Each computes the integers of `llmzip.exact.reference`, in ARITHMETIC.md's order. Products of int8 are cuBLAS's
(`torch._int_mm`); those of attention are of float32 and float64, exact at these sizes. Imports torch, so it is loaded
lazily.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from llmzip.exact import reference, tables
from llmzip.exact.matrix import ATTENTION_LIMIT, NORM_LIMIT, ONE_LIMB, SMALLEST
from llmzip.exact.spec import SELECTION_STEPS

# Plain numbers, which torch.compile needs not look into.
_SMALLEST, _LOG2_E_STEPS, _EXP_LIMIT = map(float, (SMALLEST, reference.LOG2_E_STEPS, reference.EXP_LIMIT))
_SELECTION_STEPS, _NORMAL_STEPS = float(SELECTION_STEPS), float(tables.NORMAL_STEPS)
_TOTAL = 1 << reference.FREQUENCY_BITS
_WORD = 0xFFFFFFFF


def inverse_and_scale(greatest: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """What rows of this greatest magnitude are multiplied with, and their scales."""
    nonzero = greatest >= _SMALLEST
    safe = torch.where(nonzero, greatest, 1.0)
    # Tensor by tensor: by a number, a GPU multiplies with the reciprocal.
    limits = torch.full_like(safe, limit)
    zero = torch.zeros_like(safe)
    return torch.where(nonzero, limits / safe, zero), torch.where(nonzero, safe / limits, zero)


def quantised(x: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Integers in float32, and scales."""
    inverse, scale = inverse_and_scale(x.abs().amax(dim=-1), limit)
    return (x * inverse[..., None]).round(), scale


def quantise_rows(x: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Limbs int8 `[limbs, R, D]` and scales `[R]`."""
    q, scale = quantised(x, limit)
    if limit <= ONE_LIMB:
        return q.to(torch.int8)[None], scale
    whole = q.to(torch.int32)
    high = (whole + 64) >> 7
    return torch.stack([high, whole - 128 * high]).to(torch.int8), scale


def linear(
    rows: Tensor, row_scale: Tensor, matrix: Tensor, scale: Tensor, residual: Tensor | None, wide: bool
) -> Tensor:
    """Limbs int8 `[limbs, R, K]` times int8 `[N, K]`; `wide` sums of two limbs are of 64 bits."""
    acc = torch._int_mm(rows[0], matrix.t())
    if len(rows) == 2:
        acc = (acc.to(torch.int64) if wide else acc) * 128 + torch._int_mm(rows[1], matrix.t())
    y = (acc.to(torch.float32) * row_scale[:, None]) * scale[None, :]
    return y if residual is None else residual + y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The mean is taken over 16-bit integers, in float64, where their sums are exact; eps has the bits of a float32."""
    q, scale = quantised(x, NORM_LIMIT)
    squares, scale = q.double().square().sum(dim=-1), scale.double()
    mean = (scale * scale) * (squares / torch.full_like(squares, x.shape[-1]))
    root = (mean + eps).sqrt()
    return (x * (torch.ones_like(root) / root).float()[..., None]) * weight


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The row's mean is taken off, over 16-bit integers."""
    q, scale = quantised(x, NORM_LIMIT)
    sums = q.double().sum(dim=-1)
    mean = (scale.double() * (sums / torch.full_like(sums, x.shape[-1]))).float()
    return rms_norm(x - mean[..., None], weight, eps) + bias


def exp_weights(distance: Tensor, table: Tensor) -> Tensor:
    """`2**24 * exp(-distance)` as int32."""
    steps = (distance * _LOG2_E_STEPS).clamp(max=_EXP_LIMIT).round().to(torch.int32)
    return table[steps & (tables.EXP_STEPS - 1)] >> (steps >> 10)


def activation(kind: str, x: Tensor, table: Tensor) -> Tensor:
    """As `llmzip.exact.reference.ACTIVATIONS`."""
    if kind == "relu2":
        return x.relu().square()
    if kind == "gelu":
        return _gelu(x, table)
    u = x if kind == "silu" else (x + ((x * x) * x) * 0.044715) * 1.5957691216
    e = exp_weights(u.abs(), table).float() * 2.0**-24
    return torch.where(u < 0, x * e, x) / (1.0 + e)


def _gelu(x: Tensor, table: Tensor) -> Tensor:
    place = (x.abs() * _NORMAL_STEPS).clamp(max=float(len(table) - 2))
    index = place.to(torch.int32)
    low = table[index]
    phi = low + (table[index + 1] - low) * (place - index.float())
    return x * torch.where(x < 0, 1.0 - phi, phi)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
    """Heads `[R, H, K]` by the angles `[S, W / 2]` of their rows' positions."""
    half = cos.shape[1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    c, s = cos[positions][:, None], sin[positions][:, None]
    return torch.cat([a * c - b * s, b * c + a * s, rest], dim=-1)


def embed(
    tokens: Tensor, positions: Tensor, q: Tensor, scale: Tensor, factor: float, prefix: Tensor, learned: Tensor
) -> Tensor:
    """Rows of tokens, or of the prefix for ids beyond them, and learned positions."""
    n_tokens = len(scale)
    known = tokens.clamp(max=n_tokens - 1)
    y = (q[known].float() * scale[known][:, None]) * factor
    y = torch.where((tokens >= n_tokens)[:, None], prefix[(tokens - n_tokens).clamp(min=0)], y)
    return y + learned[positions]


def find_runs(
    tokens: Tensor, lanes: Tensor, positions: Tensor, kept: Tensor, n_tokens: int, bos_id: int, reach: int
) -> Tensor:
    """Keeps the tokens, then reads the last `reach` of each row's lane, BOS before a window."""
    kept[lanes, positions] = torch.where(tokens < n_tokens, tokens, bos_id)
    back = positions[:, None] - torch.arange(reach, device=tokens.device)
    return torch.where(back >= 0, kept[lanes[:, None], back.clamp(min=0)], bos_id)


def embed_runs(x: Tensor, q: Tensor, scale: Tensor, runs: Tensor) -> Tensor:
    """Rows of each table, found by a hash in int64."""
    n_tables, table_rows, _ = q.shape
    h = (runs[:, 0].to(torch.int64) * reference.HASH_MULTIPLIERS[0]) & _WORD
    parts = []
    for i in range(n_tables):
        h = h ^ ((runs[:, i + 1].to(torch.int64) * reference.HASH_MULTIPLIERS[i + 1]) & _WORD)
        row = ((h * reference.HASH_MULTIPLIERS[0]) & _WORD) >> (33 - table_rows.bit_length())
        parts.append(q[i][row].float() * scale[i][row][:, None])
    return x + torch.cat(parts, dim=1)


def output_weights(logits: Tensor, n: int, table: Tensor) -> tuple[Tensor, Tensor]:
    """Weights int32 `[R, V]`, and their sums by buckets int64 `[R, n]`."""
    weights = exp_weights(logits.amax(dim=1, keepdim=True) - logits, table).clamp(min=1)
    padded = functional.pad(weights, (0, n * n - weights.shape[1]))
    return weights, padded.view(-1, n, n).sum(dim=2)


def shares(weights: Tensor) -> Tensor:
    """What of the coder's range each of n symbols has, of weights int64 `[R, n]`."""
    n = weights.shape[1]
    share = weights * (_TOTAL - n) // weights.sum(dim=1, keepdim=True)
    symbols = torch.arange(n, device=weights.device)
    best = torch.where(weights == weights.amax(dim=1, keepdim=True), symbols, n).amin(dim=1)
    left = (_TOTAL - n) - share.sum(dim=1)
    return torch.where(symbols == best[:, None], share + left[:, None], share).float()


def member_shares(weights: Tensor, buckets: Tensor, n: int) -> Tensor:
    """`shares` of the members of one bucket a row, of weights int32 `[R, V]`; 0 beyond the vocabulary."""
    i = buckets[:, None].to(torch.int64) * n + torch.arange(n, device=weights.device)
    found = weights.gather(1, i.clamp(max=weights.shape[1] - 1)).to(torch.int64)
    return shares(torch.where(i < weights.shape[1], found, 0))


def scores(q: Tensor, z: Tensor, keys: Tensor, key_scale: Tensor) -> Tensor:
    """Of queries int8 `[..., M, K]` whose scales times the attention scale are z, with keys int8 `[..., S, K]`."""
    return ((q.float() @ keys.float().mT) * z[..., None]) * key_scale[..., None, :]


def mix_values(score: Tensor, seen: Tensor, values: Tensor, value_scale: Tensor, table: Tensor) -> Tensor:
    """Values int8 `[..., K, S]` mixed by scores `[..., M, S]` where seen; sums are exact in float64."""
    greatest = score.masked_fill(~seen, float("-inf")).amax(dim=-1, keepdim=True)
    weights = torch.where(seen, exp_weights((greatest - score).clamp(min=0), table), 0)
    total = weights.sum(dim=-1).double()
    mixed, scale = quantised(weights.float() * value_scale[..., None, :], ATTENTION_LIMIT)
    sums = mixed.double() @ values.double().mT
    return sums.float() * (scale.double() / total).float()[..., None]


def attention(
    q: Tensor, z: Tensor, keys: Tensor, key_scale: Tensor, values: Tensor, value_scale: Tensor, seen: Tensor,
    table: Tensor,
) -> Tensor:  # fmt: skip
    """Of queries `[L, Hk, M, K]` in lanes that have keys `[L, Hk, S, K]`; seen are `[M, S]`."""
    return mix_values(scores(q, z, keys, key_scale), seen, values, value_scale, table)


def forget(score: Tensor, forgotten: Tensor, spared: Tensor, cutoff: int) -> Tensor:
    """F int32 `[L, S]` after queries whose raw scores `[L, S]` are the selecting head's."""
    steps = (score.relu() * _SELECTION_STEPS).clamp(max=float(cutoff)).round().to(torch.int32)
    return (forgotten + torch.where(spared, 0, steps)).clamp(max=cutoff)
