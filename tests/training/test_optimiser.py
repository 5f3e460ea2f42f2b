# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch

from llmzip_training.model import Llama, ModelConfig
from llmzip_training.optimiser import OptimiserConfig, make_optimisers, orthogonalise, rate_share, set_rates

CONFIG = OptimiserConfig(muon_rate=0.02, adamw_rate=0.004, weight_decay=0.01, warmup_steps=4, decay_share=0.5)


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 40)], ids=str)
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    """Of random matrices, whose singular values differ by a factor of ten and more."""
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_every_parameter_has_exactly_one_optimiser() -> None:
    """Matrices inside the blocks go to Muon, the embedding and the gains to AdamW."""
    model = Llama(ModelConfig(32, 16, 2, 2, 1, 24, 8))
    muon, adamw = ([p for group in o.param_groups for p in group["params"]] for o in make_optimisers(model, CONFIG))
    assert len(muon) == 2 * 7
    assert len(adamw) == 1 + 2 * 2 + 1
    assert {*map(id, muon), *map(id, adamw)} == {*map(id, model.parameters())}


def test_rates_follow_the_share_of_their_peaks() -> None:
    """Setting a share twice does not compound."""
    optimisers = make_optimisers(Llama(ModelConfig(32, 16, 1, 2, 1, 24, 8)), CONFIG)
    for _ in range(2):
        set_rates(optimisers, 0.5)
    assert {group["lr"] for optimiser in optimisers for group in optimiser.param_groups} == {0.01, 0.002}


def test_rate_rises_stays_and_falls_to_nothing() -> None:
    """The share of the peak at the ends of each part of the schedule."""
    points = [(0, 0.0), (3, 0.1), (50, 0.5), (75, 0.75), (100, 1.0)]
    assert [rate_share(CONFIG, step, progress) for step, progress in points] == [0.25, 1.0, 1.0, 0.5, 0.0]
