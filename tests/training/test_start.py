# ruff: noqa: TID253
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError, FileMissingError
from llmzip_training.corpus import Corpus, HeldOut
from llmzip_training.export import export_model
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.optimiser import OptimiserConfig
from llmzip_training.run_file import RunConfig, ScheduleConfig, StageConfig
from llmzip_training.start import StartConfig, starting_weights
from llmzip_training.trainer import Trainer

RandomModel = Callable[[ModelConfig], LanguageModel]

PLAIN = ModelConfig(40, 32, 2, 3, 3, 48, context=24, head_width=8)
LARGER = replace(PLAIN, n_heads=4, n_kv_heads=4, attention="selective", context=32)
IDS = torch.tensor([[1, 5, 39, 2, 2, 7]])


@pytest.fixture
def old(random_model: RandomModel, tmp_path: Path) -> LanguageModel:
    """A plain model, exported to `old`."""
    model = random_model(PLAIN)
    export_model(model, "{}", tmp_path / "old")
    return model


def _started(config: ModelConfig, start: StartConfig) -> LanguageModel:
    model = LanguageModel(config)
    model.load_state_dict(starting_weights(config, start, 0))
    return model


def test_model_of_the_same_shape_begins_with_the_weights(old: LanguageModel, tmp_path: Path) -> None:
    """Windows may be longer, and attention of another kind, which has the same weights."""
    start = StartConfig(str(tmp_path / "old"))
    with torch.no_grad():
        assert torch.equal(_started(replace(PLAIN, context=64), start)(IDS), old(IDS))
        selective = _started(replace(PLAIN, attention="selective"), start)
        assert not torch.allclose(selective(IDS), old(IDS), atol=1e-3)
    for name, value in old.state_dict().items():
        assert torch.equal(selective.state_dict()[name], value), name


def test_new_head_makes_a_plain_model_selective_and_disturbs_nothing(old: LanguageModel, tmp_path: Path) -> None:
    """By default it is 0 in keys and output; another init disturbs."""
    folder = str(tmp_path / "old")
    with torch.no_grad():
        torch.testing.assert_close(_started(LARGER, StartConfig(folder))(IDS), old(IDS), atol=1e-5, rtol=1e-5)
        disturbed = _started(LARGER, StartConfig(folder, init="normal"))
        assert not torch.allclose(disturbed(IDS), old(IDS), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(PLAIN, ffn_width=64), "expected the run's ffn_width 64, found 48"),
        (replace(PLAIN, n_layers=3), "expected the run's n_layers 3, found 2"),
        (replace(PLAIN, n_heads=5, n_kv_heads=5), r"or one less of each, \(5, 5\), found \(3, 3\)"),
        (replace(PLAIN, n_heads=4, n_kv_heads=2), r"expected the run's n_heads and n_kv_heads, .*\(4, 2\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    old: LanguageModel, tmp_path: Path, config: ModelConfig, message: str
) -> None:
    """The first difference is named."""
    assert old.config == PLAIN
    with pytest.raises(ConfigError, match=message):
        starting_weights(config, StartConfig(str(tmp_path / "old")), 0)


def test_run_begins_with_the_named_weights_and_goes_on_from_its_checkpoint(old: LanguageModel, tmp_path: Path) -> None:
    """The folder is needed at the start only."""
    run = RunConfig(
        LARGER,
        OptimiserConfig(muon_rate=0.02, adamw_rate=0.01, weight_decay=0.0, warmup_steps=1),
        ScheduleConfig(steps=2),
        (StageConfig(until=1.0, context=8, batch=4),),
        start_from=StartConfig(str(tmp_path / "old")),
    )
    tokens = (np.arange(600) % 11 + 1).astype(np.uint16)
    corpus = Corpus(tokens, (HeldOut("made", tokens[:20], 40),))
    trainer = Trainer(run, corpus, tmp_path, "cpu")
    trainer.load()
    with torch.no_grad():
        torch.testing.assert_close(trainer.model(IDS), old(IDS), atol=1e-5, rtol=1e-5)
    trainer.take_step()
    trainer.save()
    (tmp_path / "old").rename(tmp_path / "gone")
    resumed = Trainer(run, corpus, tmp_path, "cpu")
    resumed.load()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    with pytest.raises(FileMissingError, match=r"old: model: expected config\.json"):
        Trainer(run, corpus, tmp_path / "new", "cpu").load()
