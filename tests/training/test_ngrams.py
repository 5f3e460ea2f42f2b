# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch

from llmzip_training.ngrams import NgramEmbedding, hash_runs

M0, M1, M2 = 2654435761, 2246822507, 3266489917


def test_hashes_equal_an_example_by_hand() -> None:
    """The row of token 2 after token 1 is the top bits of a product of 32 bits.

    2 * 0x9e3779b1 = 0x3c6ef362; xor 0x85ebca6b, the second multiplier, 0xb9853909; times the first 0x0c00b039.
    """
    assert hash_runs(torch.tensor([[1, 2]]), 2, 16).tolist()[0][1] == 0x0
    assert hash_runs(torch.tensor([[1, 2]]), 2, 2**12).tolist()[0][1] == 0x0C0
    assert hash_runs(torch.tensor([[1, 2]]), 2, 2**24).tolist()[0][1] == 0x0C00B0


@pytest.mark.parametrize("rows", [2, 16, 4096])
def test_hashes_equal_those_of_python_integers(rows: int) -> None:
    """Runs of two and three, with 0 before the window, at the greatest token too."""
    ids = [65535, 1, 0, 65535, 65535, 7]
    padded = [0, 0, *ids]
    bits = rows.bit_length() - 1
    for n in (2, 3):
        expected = []
        for i in range(2, len(padded)):
            h = 0
            for back, multiplier in zip(range(n), (M0, M1, M2), strict=False):
                h ^= (padded[i - back] * multiplier) % 2**32
            expected.append((h * M0) % 2**32 >> (32 - bits))
        assert hash_runs(torch.tensor([ids]), n, rows).tolist() == [expected]
        assert max(expected) < rows


def test_rows_depend_on_the_run_alone() -> None:
    """The same run has the same row anywhere, what stands before it or after it does not matter, order does."""
    rows = hash_runs(torch.tensor([[4, 5, 6, 9, 5, 6, 4], [7, 7, 5, 6, 8, 6, 5]]), 2, 2**16)
    assert rows[0, 2] == rows[0, 5] == rows[1, 3]
    assert rows[1, 6] != rows[0, 2]


def test_embedding_adds_each_table_to_channels_of_its_own_and_is_causal() -> None:
    """Two tables fill the two halves; a changed token leaves all before it as it is."""
    torch.manual_seed(0)
    embedding = NgramEmbedding(2, 64, 8)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        y = embedding(ids, x)
        for i_table, table in enumerate(embedding.tables):
            channels = slice(4 * i_table, 4 * i_table + 4)
            row = hash_runs(ids, i_table + 2, 64)[0, 3]
            assert torch.equal(y[0, 3, channels], x[0, 3, channels] + table.weight[row])  # type: ignore[index]
        changed = embedding(torch.tensor([[3, 1, 4, 2, 5]]), x)
    assert torch.equal(changed[:, :3], y[:, :3])
    assert not torch.equal(changed[:, 3], y[:, 3])


def test_no_tables_add_nothing() -> None:
    """A model without them is what it was."""
    x = torch.randn(1, 3, 8)
    assert torch.equal(NgramEmbedding(0, 0, 8)(torch.tensor([[1, 2, 3]]), x), x)
