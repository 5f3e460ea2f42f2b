# ruff: noqa: TID253
from __future__ import annotations

import torch

from llmzip_training.chooser import choose, fit_chooser


def test_linear_gains_are_learnt() -> None:
    """From pieces with little noise, with a bias, by hardly any penalty."""
    generator = torch.Generator().manual_seed(0)
    features, truth = torch.randn(200, 6, generator=generator), torch.randn(7, 3, generator=generator)
    gains = features @ truth[:-1] + truth[-1]
    weights = fit_chooser(features, gains + 0.01 * torch.randn(200, 3, generator=generator))
    assert weights.shape == (7, 3)
    torch.testing.assert_close(weights, truth, rtol=0, atol=0.02)


def test_noise_is_not_learnt() -> None:
    """With more features than pieces the penalty that leaves pieces out best is a great one."""
    generator = torch.Generator().manual_seed(0)
    features, gains = torch.randn(30, 60, generator=generator), torch.randn(30, 2, generator=generator)
    weights = fit_chooser(features, gains)
    assert weights[:-1].abs().max() < 0.1


def test_features_that_never_change_do_no_harm() -> None:
    """Nor do pieces that are all alike."""
    weights = fit_chooser(torch.ones(5, 3), torch.tensor([[1.0, -1.0]] * 5))
    torch.testing.assert_close(torch.ones(1, 3) @ weights[:-1] + weights[-1], torch.tensor([[1.0, -1.0]]))


def test_no_entry_is_chosen_where_none_gains() -> None:
    """Else the one with the greatest gain, counted from 1."""
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -0.5]])
    features = torch.tensor([[-1.0, 0.2], [2.0, 1.0], [2.0, 9.0]])
    assert choose(features, weights).tolist() == [0, 1, 2]
