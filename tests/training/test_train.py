# ruff: noqa: TID253
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError
from llmzip_training import train
from llmzip_training.corpus import Corpus, HeldOut
from llmzip_training.model import ModelConfig
from llmzip_training.optimiser import OptimiserConfig
from llmzip_training.run_file import RunConfig, ScheduleConfig
from llmzip_training.train import Trainer

RUN = RunConfig(
    ModelConfig(vocab_size=24, width=32, n_layers=2, n_heads=2, n_kv_heads=1, ffn_width=48, context=16),
    OptimiserConfig(muon_rate=0.02, adamw_rate=0.01, weight_decay=0.02, warmup_steps=3, decay_share=0.4),
    ScheduleConfig(batch=8, steps=40, seed=5, log_every=10, measure_every=20),
)
NEVER = float("inf")


@pytest.fixture
def corpus() -> Corpus:
    """Tokens that repeat with a period of 11, with a boundary now and then."""
    tokens = (np.arange(6000) % 11 + 1).astype(np.uint16)
    tokens[::97] = 0
    return Corpus(tokens, (HeldOut("made", tokens[:200], 400),))


def test_loss_falls_on_text_that_repeats(corpus: Corpus, tmp_path: Path) -> None:
    """After 40 steps the model knows the period, and the metrics say so."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    before = trainer.measure()["all"]
    assert trainer.train(NEVER)
    assert trainer.measure()["all"] < 0.5 * before
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "held_out" in line] == [20, 40]


def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    """Weights, momenta, order of the windows and learning rates all continue."""
    whole = Trainer(RUN, corpus, tmp_path, "cpu")
    whole.train(NEVER)
    paused = Trainer(RUN, corpus, tmp_path, "cpu")
    for _ in range(17):
        paused.take_step()
    paused.save()
    resumed = Trainer(RUN, corpus, tmp_path, "cpu")
    resumed.load()
    assert resumed.step == 17
    resumed.train(NEVER)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_run_pauses_when_its_time_is_up(corpus: Corpus, tmp_path: Path) -> None:
    """A pause is no end."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    assert not trainer.train(0.0)
    assert trainer.step == 0


def test_run_by_time_ends(corpus: Corpus, tmp_path: Path) -> None:
    """A run without a number of steps ends after its training time."""
    schedule = replace(RUN.schedule, steps=0, seconds=0.2, log_every=1)
    trainer = Trainer(replace(RUN, schedule=schedule), corpus, tmp_path, "cpu")
    assert trainer.train(NEVER)
    assert trainer.elapsed_s >= 0.2


def test_checkpoint_of_another_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """A changed run file does not continue what it did not begin."""
    Trainer(RUN, corpus, tmp_path, "cpu").save()
    other = replace(RUN, schedule=replace(RUN.schedule, seed=6))
    with pytest.raises(ConfigError, match=r"checkpoint\.pt"):
        Trainer(other, corpus, tmp_path, "cpu").load()


def test_command_trains_from_shards_to_an_exported_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: tokenizer, token files, training, export."""
    import zstandard

    documents = [f"Article {i} tells of the number {i} and of nothing else.\n" * 4 for i in range(80)]
    (tmp_path / "made.txt.zst").write_bytes(zstandard.ZstdCompressor().compress("\0".join(documents).encode()))
    (tmp_path / "run.toml").write_text(
        "[model]\nvocab_size=300\nwidth=16\nn_layers=1\nn_heads=2\nn_kv_heads=1\nffn_width=24\ncontext=32\n"
        "[optimiser]\nmuon_rate=0.02\nadamw_rate=0.01\nweight_decay=0.0\nwarmup_steps=2\ndecay_share=0.5\n"
        "[schedule]\nbatch=4\nsteps=6\n"
    )
    out = tmp_path / "out"
    arguments = ["train", str(tmp_path / "run.toml"), "--data", str(tmp_path), "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", arguments)
    train.main()
    assert {path.name for path in (out / "hf").iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(json.loads((out / "held_out.json").read_text())["bits_per_byte"]) == {"made", "all"}
