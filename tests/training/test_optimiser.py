# ruff: noqa: TID253
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from llmzip.errors import ConfigError
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.optimiser import Muon, OptimiserConfig, make_optimisers, orthogonalise, rate_share, set_rates

CONFIG = OptimiserConfig(muon_rate=0.02, adamw_rate=0.004, weight_decay=0.01, warmup_steps=4, decay_share=0.5)
MODEL = ModelConfig(32, 16, n_layers=2, n_heads=2, n_kv_heads=1, ffn_width=24, context=8)


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 40)], ids=str)
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    """Of random matrices, whose singular values differ by a factor of ten and more."""
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_every_parameter_has_exactly_one_optimiser() -> None:
    """Matrices inside the blocks go to Muon, the embedding and the gains to AdamW."""
    model = LanguageModel(ModelConfig(32, 16, 2, 2, 1, 24, 8))
    muon, adamw = ([p for group in o.param_groups for p in group["params"]] for o in make_optimisers(model, CONFIG))
    assert len(muon) == 2 * 7
    assert len(adamw) == 1 + 2 * 2 + 1
    assert {*map(id, muon), *map(id, adamw)} == {*map(id, model.parameters())}


def test_rates_follow_the_share_of_their_peaks() -> None:
    """Setting a share twice does not compound."""
    optimisers = make_optimisers(LanguageModel(ModelConfig(32, 16, 1, 2, 1, 24, 8)), CONFIG)
    for _ in range(2):
        set_rates(optimisers, 0.5)
    assert {group["lr"] for optimiser in optimisers for group in optimiser.param_groups} == {0.01, 0.002}


WARMUP, STEPS = 4, 100


def _share(step: int, **changes: Any) -> float:
    """The share of the peak at a step of a run of 100 steps."""
    return rate_share(replace(CONFIG, **changes), step, step / STEPS)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.25), (WARMUP - 1, 1.0), (WARMUP, 1.0), (50, 1.0), (75, 0.5), (99, 0.02), (STEPS, 0.0)]
)
def test_wsd_rises_stays_and_falls_to_nothing(step: int, share: float) -> None:
    """Linear in the warm-up, constant, and linear over the second half."""
    assert _share(step) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.25), (WARMUP - 1, 1.0), (WARMUP, 1.0), (52, 0.55), (28, 0.1 + 0.9 * 0.8535533905932737), (STEPS, 0.1)],
)
def test_cosine_rises_and_falls_to_its_final_share(step: int, share: float) -> None:
    """Half a cosine from the end of the warm-up on: half of the way in its middle, (1 + cos 45°) / 2 in its quarter."""
    assert _share(step, rate_schedule="cosine", decay_share=0.0, final_share=0.1) == pytest.approx(share, abs=1e-12)


def test_no_decay_stays_at_the_peak() -> None:
    """Without a decay share the rate stays where the warm-up left it."""
    assert _share(STEPS - 1, decay_share=0.0) == 1.0


def test_cosine_by_time_ends_where_it_should() -> None:
    """Steps per progress may change on the way; at the end the rate is the final share."""
    config = replace(CONFIG, rate_schedule="cosine", decay_share=0.0, final_share=0.2)
    assert rate_share(config, 5, 0.0) == 1.0
    assert rate_share(config, 777, 1.0) == pytest.approx(0.2)


def test_adamw_alone_decays_matrices_only() -> None:
    """Every parameter once, with the usual momenta; no decay for tensors of one dimension."""
    model = LanguageModel(MODEL)
    config = replace(CONFIG, kind="adamw", muon_rate=0.0)
    (adamw,) = make_optimisers(model, config)
    groups = {group["weight_decay"]: group["params"] for group in adamw.param_groups}
    assert {p.ndim for p in groups[0.01]} == {2}
    assert {p.ndim for p in groups[0.0]} == {1}
    assert len(groups[0.01]) + len(groups[0.0]) == len(list(model.parameters()))
    assert {(group["betas"], group["lr"]) for group in adamw.param_groups} == {((0.9, 0.95), 0.004)}


def test_muon_step_is_an_orthogonal_move_and_decay() -> None:
    """From zero, the first step is the gradient made orthogonal, times the rate; decay shrinks what was there."""
    weight = nn.Parameter(torch.zeros(8, 8))
    muon = Muon([weight], rate=0.5, weight_decay=0.1)
    weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    muon.step()
    torch.testing.assert_close(weight.detach(), -0.5 * orthogonalise(weight.grad[None])[0], atol=1e-6, rtol=0)
    before = weight.detach().clone()
    weight.grad = torch.zeros(8, 8)
    muon.param_groups[0]["lr"] = 1e-9
    muon.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 1e-10), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adamw_rate": 0.0}, "adamw_rate: expected a number above 0"),
        ({"decay_share": 1.5}, "decay_share: expected 0 to 1"),
        ({"final_share": -0.1}, "final_share: expected 0 to 1"),
        ({"weight_decay": float("nan")}, "weight_decay: expected 0 to 1"),
        ({"warmup_steps": -1}, "warmup_steps: expected at least 0"),
        ({"clip_norm": 0.0}, "clip_norm: expected a number above 0"),
        ({"muon_rate": 0.0}, "muon_rate: expected one for muon only"),
        ({"kind": "adamw"}, "muon_rate: expected one for muon only"),
        ({"rate_schedule": "cosine"}, "decay_share: expected it for wsd only"),
    ],
    ids=str,
)
def test_settings_out_of_range_or_without_use_are_refused(changes: dict[str, Any], message: str) -> None:
    """A number that cannot work, or that nothing would read, is a mistake in the file."""
    with pytest.raises(ConfigError, match=rf"^optimiser\.{message}"):
        replace(CONFIG, **changes)
