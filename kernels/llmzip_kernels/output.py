# ruff: noqa: TID253
"""From logits to the frequencies that the entropy coder takes; the weights of all tokens stay on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmzip_kernels.activation import exp2_on
from llmzip_kernels.arithmetic import exp_weights, shares, tile
from llmzip_kernels.launching import EXACT, grid, power_of_two, tiling

# Elements of a row at once.
_BLOCK = 4096


@triton.jit
def greatest_kernel(logits_ptr, greatest_ptr, vocab_size, BLOCK: tl.constexpr):
    """The greatest logit of a row a program; logits float32 `[R, V]`."""
    i_row = tl.program_id(0).to(tl.int64)
    greatest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for v in range(0, vocab_size, BLOCK):
        i = v + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + i_row * vocab_size + i, mask=i < vocab_size, other=float("-inf"))
        greatest = tl.maximum(greatest, logits)
    tl.store(greatest_ptr + i_row, tl.max(greatest, axis=0))


@triton.jit
def weights_kernel(logits_ptr, greatest_ptr, table_ptr, weights_ptr, sums_ptr, vocab_size, n,
                   BUCKETS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some buckets of a row a program; weights int32 `[R, V]`, sums int64 `[R, n]`."""
    i_row = tl.program_id(0).to(tl.int64)
    i_bucket = tl.program_id(1) * BUCKETS + tl.arange(0, BUCKETS)
    i_member = tl.arange(0, BLOCK)
    i = i_bucket[:, None] * n + i_member[None, :]
    m = (i < vocab_size) & (i_member < n)[None, :] & (i_bucket < n)[:, None]
    greatest = tl.load(greatest_ptr + i_row)
    distance = greatest - tl.load(logits_ptr + i_row * vocab_size + i, mask=m, other=0.0)
    weight = tl.maximum(exp_weights(tl.where(m, distance, 0.0), table_ptr), 1)
    tl.store(weights_ptr + i_row * vocab_size + i, weight, mask=m)
    sums = tl.sum(tl.where(m, weight, 0).to(tl.int64), axis=1)
    tl.store(sums_ptr + i_row * n + i_bucket, sums, mask=i_bucket < n)


@triton.jit
def bucket_frequencies_kernel(sums_ptr, y_ptr, n_rows, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Some rows a program; sums int64 `[R, n]`, y float32 `[R, n]`."""
    _, i, o, m = tile(n_rows, n, n, ROWS, BLOCK)
    tl.store(y_ptr + o, shares(tl.load(sums_ptr + o, mask=m, other=0), i, n), mask=m)


@triton.jit
def member_frequencies_kernel(weights_ptr, buckets_ptr, y_ptr, vocab_size, n_rows, n,
                              ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program; weights int32 `[R, V]`, buckets int32 `[R]`, y float32 `[R, n]`."""
    i_row, i, o, m = tile(n_rows, n, n, ROWS, BLOCK)
    bucket = tl.load(buckets_ptr + i_row, mask=i_row < n_rows, other=0)
    token = bucket[:, None] * n + i[None, :]
    o_token = i_row.to(tl.int64)[:, None] * vocab_size + token
    weights = tl.load(weights_ptr + o_token, mask=m & (token < vocab_size), other=0).to(tl.int64)
    tl.store(y_ptr + o, shares(weights, i, n), mask=m)


def output_weights(logits: torch.Tensor, bucket_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights int32 `[R, V]` of logits, and their sums int64 `[R, n]` by buckets of n tokens.

    Bit-equal to `llmzip.exact.reference.output_weights`.
    """
    n_rows, vocab_size = logits.shape
    greatest = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    block = min(_BLOCK, power_of_two(vocab_size))
    greatest_kernel[(n_rows,)](logits, greatest, vocab_size, BLOCK=block, num_warps=8, **EXACT)
    weights = torch.empty((n_rows, vocab_size), dtype=torch.int32, device=logits.device)
    sums = torch.empty((n_rows, bucket_size), dtype=torch.int64, device=logits.device)
    block = power_of_two(bucket_size)
    together = max(1, _BLOCK // block)
    weights_kernel[(n_rows, -(-bucket_size // together))](
        logits, greatest, exp2_on(logits.device), weights, sums, vocab_size, bucket_size,
        BUCKETS=together, BLOCK=block, num_warps=8, **EXACT,
    )  # fmt: skip
    return weights, sums


def bucket_frequencies(sums: torch.Tensor) -> torch.Tensor:
    """Shares of the coder's range of buckets whose weights int64 `[R, n]` are given, float32 `[R, n]`.

    Bit-equal to `llmzip.exact.reference.frequencies`.
    """
    y = torch.empty(sums.shape, dtype=torch.float32, device=sums.device)
    tiles = tiling(len(sums), power_of_two(sums.shape[1]))
    bucket_frequencies_kernel[grid(len(sums), tiles)](sums, y, *sums.shape, **tiles, **EXACT)
    return y


def member_frequencies(weights: torch.Tensor, buckets: torch.Tensor, bucket_size: int) -> torch.Tensor:
    """Shares of the tokens of one bucket a row, of weights int32 `[R, V]`; float32 `[R, n]`.

    Bit-equal to `llmzip.exact.reference.frequencies` of those weights, 0 beyond the vocabulary.
    """
    n_rows, vocab_size = weights.shape
    y = torch.empty((n_rows, bucket_size), dtype=torch.float32, device=weights.device)
    tiles = tiling(n_rows, power_of_two(bucket_size))
    member_frequencies_kernel[grid(n_rows, tiles)](
        weights, buckets, y, vocab_size, n_rows, bucket_size, **tiles, **EXACT
    )  # fmt: skip
    return y
