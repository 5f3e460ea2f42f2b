# ruff: noqa: TID253
"""Predicts which entry of a codebook a piece of text gains most from; imports torch, so it is loaded lazily as a whole.

A linear map of the piece's mean embedding to the gain of each entry in nats a token: an encoder chooses in
microseconds, where trying every entry takes as many passes through the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Penalties that are tried, for each piece that is learnt from.
PENALTIES = tuple(10.0**exponent for exponent in range(-4, 3))


def fit_chooser(features: Tensor, gains: Tensor) -> Tensor:
    """Ridge regression, its penalty the one with the least error on pieces that are left out, one at a time.

    Args:
        features: mean embeddings, `[N, D]`.
        gains: nats a token that each entry saves, `[N, K]`.

    Returns:
        Weights `[D + 1, K]`, float32, the last row the bias.
    """
    x, y = features.double(), gains.double()
    centre, scale = x.mean(dim=0), x.std(dim=0, correction=0).clamp(min=1e-9)
    mean_gain = y.mean(dim=0)
    weights = _ridge((x - centre) / scale, y - mean_gain) / scale[:, None]
    return torch.cat((weights, (mean_gain - centre @ weights)[None])).float()


def choose(features: Tensor, weights: Tensor) -> Tensor:
    """The entry of each piece, int64 `[N]`: 0 for none, where no gain is expected, else 1 to K."""
    gains = features @ weights[:-1] + weights[-1]
    return torch.cat((torch.zeros_like(gains[:, :1]), gains), dim=1).argmax(dim=1)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Weights `[D, K]` for centred rows; the error of a row left out is its residue over 1 - its leverage."""
    left, singular, right = torch.linalg.svd(x, full_matrices=False)
    targets = left.T @ y
    best_error, best_shares = float("inf"), singular
    for penalty in PENALTIES:
        shares = singular.square() / (singular.square() + penalty * len(x))
        leverage = left.square() @ shares + 1 / len(x)
        residue = (y - left @ (shares[:, None] * targets)) / (1 - leverage).clamp(min=1e-6)[:, None]
        error = residue.square().mean().item()
        if error < best_error:
            best_error, best_shares = error, shares
    inverse = torch.where(singular > 1e-9, best_shares / singular.clamp(min=1e-9), 0.0)
    weights: Tensor = right.T @ (inverse[:, None] * targets)
    return weights
