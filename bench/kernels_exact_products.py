# ruff: noqa: TID253
"""Operations of the exact engine on matrices and tables: products, embeddings, output weights; see `kernels_exact`.

Imports torch and Triton, so it is loaded lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import kernels_eager as eager
from bench.kernels_exact import Array, ExactCase, bytes_of, floats, host, in_words, integers, some_rows
from llmzip.exact import reference
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix, Rows
from llmzip_kernels import embedding, linear, output, quantise, runs, shifts
from llmzip_kernels.activation import exp2_on

BOS = 1
_FACTOR = 4.0


class Product(NamedTuple):
    """Rows, terms and columns of a product, and what its rows are quantised to."""

    n_rows: int
    n_terms: int
    n_columns: int
    limit: int
    residual: bool

    def __str__(self) -> str:
        added = " and residual" if self.residual else ""
        return f"product{added} R{self.n_rows} K{self.n_terms} N{self.n_columns}, {in_words(self.limit)}"


# Of windows and of a step: queries, keys and values; the MLP's last one; the output's; and one whose sums leave int32.
_PRODUCTS = [
    Product(n_rows, *shape) for n_rows in (8192, 512)
    for shape in ((576, 960, TWO_LIMBS, False), (576, 960, ONE_LIMB, False), (1536, 576, TWO_LIMBS, True))
]  # fmt: skip
_PRODUCTS += [Product(512, 576, 49152, TWO_LIMBS, False), Product(512, 4096, 4096, TWO_LIMBS, False)]
_SMALL_PRODUCTS = [
    Product(24, 72, 64, TWO_LIMBS, True), Product(24, 72, 64, ONE_LIMB, False), Product(17, 2112, 8, TWO_LIMBS, False)
]  # fmt: skip


def products(device: str, small: bool) -> Iterator[ExactCase]:
    """Quantised rows times a matrix, and the residual added where the engine does so."""
    for shape in _SMALL_PRODUCTS if small else _PRODUCTS:
        x, rows = floats(device, shape.n_rows, shape.n_terms), some_rows(shape.n_rows)
        residual = floats(device, shape.n_rows, shape.n_columns, seed=1) if shape.residual else None
        # A row of extremes, so that sums are as great as they can be.
        x[0] = 1.0
        q = integers(device, -127, 128, shape.n_columns, shape.n_terms, dtype=torch.int8)
        q[0] = 127
        scale = floats(device, shape.n_columns, seed=2).abs() + 0.5
        matrix = linear.load_matrix(QuantisedMatrix(host(q), host(scale), None, shape.limit))
        limbs = quantise.quantise_rows(x, shape.limit)
        known = reference.quantise_rows(host(x[rows]), shape.limit)
        halves = x.to(torch.bfloat16), q.to(torch.bfloat16)
        yield ExactCase(
            str(shape),
            "the same integers, products by torch._int_mm; bfloat16: one product of that type, no scales, not exact",
            partial(linear.linear, limbs, matrix, residual),
            lambda y: (y,),
            rows,
            partial(_product, known, host(q), host(scale), None if residual is None else host(residual[rows])),
            partial(_eager_product, matrix.wide),
            (limbs.q[:, :, : shape.n_terms].contiguous(), limbs.scale, q, scale, residual),
            bytes_of(limbs.q, limbs.scale, q, scale, residual) + 4 * shape.n_rows * shape.n_columns,
            2 * len(limbs.q) * shape.n_rows * shape.n_terms * shape.n_columns,
            others={"bfloat16": partial(torch.mm, halves[0], halves[1].t())},
        )


def embeddings(device: str, small: bool) -> Iterator[ExactCase]:
    """Of tokens, rows of a prefix among them, with learned positions."""
    n_rows, vocab_size, width = (5, 40, 65) if small else (32768, 49152, 576)
    q = integers(device, -127, 128, vocab_size, width, dtype=torch.int8)
    scale, prefix, learned = (floats(device, *shape).abs() for shape in ((vocab_size,), (4, width), (1024, width)))
    tokens = integers(device, 0, vocab_size + 4, n_rows)
    positions = torch.arange(n_rows, dtype=torch.int32, device=device) % 1024
    rows = some_rows(n_rows)
    inputs = (tokens, positions, q, scale, vocab_size, _FACTOR, prefix, learned)
    yield ExactCase(
        f"embed R{n_rows} D{width}, prefix and learned positions",
        "the same numbers, operation by operation",
        partial(embedding.embed, *inputs),
        lambda y: (y,),
        rows,
        lambda: (_embedded(host(tokens[rows]), host(positions[rows]), *map(host, (q, scale, prefix, learned))),),
        lambda tokens, positions, q, scale, prefix, learned: (
            eager.embed(tokens, positions, q, scale, _FACTOR, prefix, learned),
        ),
        (tokens, positions, q, scale, prefix, learned),
        bytes_of(tokens, positions, learned) + n_rows * (width * (1 + 4) + 4),
    )


def runs_of_tokens(device: str, small: bool) -> Iterator[ExactCase]:
    """Runs that end in each token, and what n-gram tables hold for them."""
    n_rows, n_lanes, width = (6, 2, 15) if small else (32768, 32, 576)
    n_tables, table_rows, vocab_size, length = 3, 64 if small else 65536, 49152, n_rows // n_lanes
    tokens = integers(device, 0, vocab_size, n_rows)
    index = torch.arange(n_rows, dtype=torch.int32, device=device)
    lanes, positions, rows = index // length, index % length, some_rows(n_rows)
    kept = torch.zeros((n_lanes, length), dtype=torch.int32, device=device)
    where = (lanes, positions, lanes * length)
    find = partial(runs.find_runs, tokens, *where, kept, vocab_size, BOS, n_tables + 1)
    yield ExactCase(
        f"find runs R{n_rows}, {n_tables} tables",
        "the same numbers, from tokens that are kept first",
        find,
        lambda found: (found,),
        rows,
        lambda: (_runs(host(tokens), length, n_tables + 1)[rows],),
        lambda *inputs: (eager.find_runs(*inputs),),
        (tokens, lanes.long(), positions.long(), kept, vocab_size, BOS, n_tables + 1),
        bytes_of(tokens, *where, kept) + 4 * n_rows * (n_tables + 1),
    )
    x = floats(device, n_rows, width)
    q = integers(device, -127, 128, n_tables, table_rows, width // n_tables, dtype=torch.int8)
    scale, found = floats(device, n_tables, table_rows).abs(), find()
    tables = [QuantisedMatrix(host(q[i]), host(scale[i]), None, ONE_LIMB) for i in range(n_tables)]
    yield ExactCase(
        f"embed runs R{n_rows} D{width}, {n_tables} tables",
        "the same numbers, hashes in int64",
        partial(runs.embed_runs, x, q, scale, found),
        lambda y: (y,),
        rows,
        lambda: (reference.embed_runs(host(x[rows]), tables, host(found[rows]).astype(np.int64)),),
        lambda *inputs: (eager.embed_runs(*inputs),),
        (x, q, scale, found),
        bytes_of(x, x, found) + n_rows * (width + 4 * n_tables),
    )


def steering(device: str, small: bool) -> Iterator[ExactCase]:
    """Shifts of lanes, every second of which is steered."""
    n_rows, width, n_lanes = (5, 65, 3) if small else (32768, 576, 32)
    x, added, rows = floats(device, n_rows, width), floats(device, n_lanes, 4, width), some_rows(n_rows)
    lanes = torch.arange(n_rows, dtype=torch.int32, device=device) % n_lanes
    steered = lanes % 2
    layer = 2
    yield ExactCase(
        f"shift R{n_rows} D{width}",
        "the same numbers, sums for all rows and a choice",
        partial(shifts.shift, x, added, lanes, steered, layer),
        lambda y: (y,),
        rows,
        lambda: (
            np.where(
                host(steered[rows])[:, None] != 0, host(x[rows]) + host(added)[host(lanes[rows]), layer], host(x[rows])
            ),
        ),
        lambda x, added, lanes, steered: (torch.where(steered[:, None] != 0, x + added[lanes, layer], x),),
        (x, added, lanes, steered),
        bytes_of(x, x, lanes, steered, added[:, layer]),
    )


def frequencies(device: str, small: bool) -> Iterator[ExactCase]:
    """Weights of all tokens with sums of buckets, shares of buckets, and of the members of one bucket a row."""
    n_rows, vocab_size, n = (3, 83, 10) if small else (512, 49152, 222)
    logits, rows = floats(device, n_rows, vocab_size) * 4, some_rows(n_rows)
    known = reference.output_weights(host(logits[rows]))
    padded = np.zeros((len(known), n * n), np.int64)
    padded[:, :vocab_size] = known
    buckets = padded.reshape(-1, n, n)
    weights, sums = output.output_weights(logits, n)
    yield ExactCase(
        f"output weights and bucket sums R{n_rows} V{vocab_size}",
        "the same integers, operation by operation",
        partial(output.output_weights, logits, n),
        lambda found: found,
        rows,
        lambda: (known, buckets.sum(axis=2)),
        eager.output_weights,
        (logits, n, exp2_on(logits.device)),
        bytes_of(logits, weights, sums),
    )
    yield ExactCase(
        f"bucket frequencies R{n_rows} n{n}",
        "the same integers, operation by operation",
        partial(output.bucket_frequencies, sums),
        lambda y: (y,),
        rows,
        lambda: (reference.frequencies(buckets.sum(axis=2)).astype(np.float32),),
        lambda sums: (eager.shares(sums),),
        (sums,),
        bytes_of(sums) + 4 * n_rows * n,
    )
    chosen = integers(device, 0, -(-vocab_size // n), n_rows)
    yield ExactCase(
        f"member frequencies R{n_rows} V{vocab_size} n{n}",
        "the same integers, operation by operation",
        partial(output.member_frequencies, weights, chosen, n),
        lambda y: (y,),
        rows,
        lambda: (reference.frequencies(buckets[np.arange(len(buckets)), host(chosen[rows])]).astype(np.float32),),
        lambda weights, chosen: (eager.member_shares(weights, chosen, n),),
        (weights, chosen),
        bytes_of(chosen) + 2 * 4 * n_rows * n,
    )


def _product(rows: Rows, q: Array, scale: Array, residual: Array | None) -> Sequence[Array]:
    # Sums are exact in float64, and NumPy multiplies that fast.
    acc = rows.q.astype(np.float64) @ q.astype(np.float64).T
    y = (acc.astype(np.int64).astype(np.float32) * rows.scale[:, None]) * scale[None, :]
    return (y if residual is None else residual + y,)


def _eager_product(
    wide: bool, rows: Tensor, row_scale: Tensor, q: Tensor, scale: Tensor, residual: Tensor | None
) -> Sequence[Tensor]:
    return (eager.linear(rows, row_scale, q, scale, residual, wide),)


def _embedded(tokens: Array, positions: Array, q: Array, scale: Array, prefix: Array, learned: Array) -> Array:
    known = np.minimum(tokens, len(q) - 1)
    y = (q[known].astype(np.float32) * scale[known][:, None]) * np.float32(_FACTOR)
    given = tokens >= len(q)
    y[given] = prefix[tokens[given] - len(q)]
    found: Array = y + learned[positions]
    return found


def _runs(tokens: Array, length: int, reach: int) -> Array:
    """Of lanes of so many tokens, each the last first; BOS stands before."""
    lanes = np.pad(tokens.reshape(-1, length), ((0, 0), (reach - 1, 0)), constant_values=BOS)
    windows = np.lib.stride_tricks.sliding_window_view(lanes, reach, axis=1)[:, :, ::-1]
    return windows.reshape(-1, reach)


OPERATIONS = (products, embeddings, runs_of_tokens, steering, frequencies)
