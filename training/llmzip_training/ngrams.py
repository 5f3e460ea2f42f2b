# ruff: noqa: TID253
"""Embeddings of runs of tokens, by hashing; imports torch, so it is loaded lazily as a whole.

A token's embedding is joined by those of the run of two tokens that ends with it, of three, and so on.
Each length has a table of its own, in whose rows runs are found by a hash, and fills channels of its
own. A look-up costs nothing beside a product, so the tables add memory of common phrases to a small model
at the price of their bytes alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.exact.reference import HASH_MULTIPLIERS
from llmzip_training.corpus import END_OF_DOCUMENT

_WORD = 0xFFFFFFFF


class NgramEmbedding(nn.Module):
    """Tables for runs of 2 to `n_tables + 1` tokens, each `[rows, width / n_tables]`.

    Args:
        n_tables: how many, 0 to 3.
        rows: of each table, a power of two.
        width: of the model.
    """

    def __init__(self, n_tables: int, rows: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.tables = nn.ModuleList(nn.Embedding(rows, width // n_tables) for _ in range(n_tables))

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        """Add the embeddings of the runs that end at each of `ids` `[B, T]` to `x` `[B, T, D]`."""
        if not len(self.tables):
            return x
        runs = [table(hash_runs(ids, i + 2, self.rows)) for i, table in enumerate(self.tables)]
        return x + torch.cat(runs, dim=-1)


def hash_runs(ids: Tensor, n: int, rows: int) -> Tensor:
    """The row of each run of `n` tokens, int64 as `ids` `[B, T]`; before the window there is END_OF_DOCUMENT.

    All in 32 bits: h = (t * m0) xor (t' * m1) xor ..., t the last token, t' the one before, and the
    row is the highest bits of h * m0.
    """
    h = torch.zeros_like(ids)
    for back in range(n):
        earlier = functional.pad(ids, (back, 0), value=END_OF_DOCUMENT)[:, : ids.shape[1]]
        h = h ^ (earlier * HASH_MULTIPLIERS[back] & _WORD)
    return (h * HASH_MULTIPLIERS[0] & _WORD) >> (32 - (rows.bit_length() - 1))
