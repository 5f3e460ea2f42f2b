# ruff: noqa: TID253
"""Groups pieces of text by what they are about; imports torch, so it is loaded lazily as a whole.

A piece is known by the mean of its tokens' embeddings, which an encoder has for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 25


def mean_embeddings(pieces: Tensor, embeddings: Tensor, bos_id: int) -> Tensor:
    """The mean embedding of the text of each piece.

    Args:
        pieces: `[N, T]`, int64; BOS is filling, and no piece is all of it.
        embeddings: `[V, D]`, float32.
        bos_id: BOS.

    Returns:
        `[N, D]`, float32.
    """
    means = []
    for piece in pieces:
        text = piece[piece != bos_id]
        means.append(embeddings[text].mean(dim=0))
    return torch.stack(means)


def k_means(features: Tensor, k: int, seed: int) -> Tensor:
    """Clusters of rows, the same for the same seed.

    Args:
        features: `[N, D]`, float32.
        k: how many clusters; with fewer different rows some stay empty.
        seed: of the first centres, which are drawn far from each other (k-means++).

    Returns:
        The cluster of each row, int64 `[N]`, 0 to k - 1.
    """
    scaled = (features - features.mean(dim=0)) / features.std(dim=0, correction=0).clamp(min=1e-9)
    centres = _first_centres(scaled, k, seed)
    labels = _nearest(scaled, centres)
    for _ in range(ROUNDS):
        for i in range(k):
            if (labels == i).any():
                centres[i] = scaled[labels == i].mean(dim=0)
        found = _nearest(scaled, centres)
        if torch.equal(found, labels):
            break
        labels = found
    return labels


def _first_centres(features: Tensor, k: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(features), (1,), generator=generator))]
    for _ in range(k - 1):
        distances = torch.cdist(features, features[chosen]).amin(dim=1).square().cpu()
        weights = distances if distances.sum() > 0 else torch.ones_like(distances)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return features[chosen].clone()


def _nearest(features: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(features, centres).argmin(dim=1)
