# ruff: noqa: TID253
from __future__ import annotations

import torch

from llmzip_training.clusters import k_means, mean_embeddings


def test_means_leave_filling_out() -> None:
    """A piece is known by its text alone."""
    embeddings = torch.arange(12.0).view(6, 2)
    pieces = torch.tensor([[1, 3, 0, 0], [5, 5, 5, 5]])
    assert mean_embeddings(pieces, embeddings, 0).tolist() == [[4.0, 5.0], [10.0, 11.0]]


def test_separate_groups_are_found() -> None:
    """Whatever the seed, and the same for the same seed."""
    groups = torch.arange(3).repeat(20)
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    features = 30 * torch.eye(4)[groups] + 0.1 * noise
    for seed in range(5):
        labels = k_means(features, 3, seed)
        assert torch.equal(labels, k_means(features, 3, seed))
        assert len({(int(a), int(b)) for a, b in zip(groups, labels, strict=True)}) == 3


def test_equal_rows_are_one_cluster() -> None:
    """The others stay empty, and few rows are no error."""
    assert len(set(k_means(torch.ones(5, 3), 4, 0).tolist())) == 1
    assert k_means(torch.randn(2, 3), 4, 0).shape == (2,)
