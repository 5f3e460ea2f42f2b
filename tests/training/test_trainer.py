# ruff: noqa: TID253
from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError, DiskFullError, DivergedError
from llmzip_training import checkpoint, trainer
from llmzip_training.checkpoint import checkpoint_paths, load_newest, save_checkpoint
from llmzip_training.corpus import Corpus, HeldOut
from llmzip_training.distributed import Processes, T
from llmzip_training.model import ModelConfig
from llmzip_training.optimiser import OptimiserConfig
from llmzip_training.run_file import RunConfig, ScheduleConfig, StageConfig
from llmzip_training.trainer import Trainer

RUN = RunConfig(
    ModelConfig(
        vocab_size=24, width=32, n_layers=2, n_heads=2, n_kv_heads=1, ffn_width=48, context=16, attention="selective"
    ),
    OptimiserConfig(muon_rate=0.02, adamw_rate=0.01, weight_decay=0.02, warmup_steps=3, decay_share=0.4),
    ScheduleConfig(steps=40, seed=5, log_every=10, measure_every=20),
    (StageConfig(until=0.3, context=8, batch=16), StageConfig(until=1.0, context=16, batch=8, memory_weight=0.05)),
)
ADAMW = replace(RUN, optimiser=replace(RUN.optimiser, kind="adamw", muon_rate=0.0))
NEVER = float("inf")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def corpus() -> Corpus:
    """Tokens that repeat with a period of 11, with a boundary now and then."""
    tokens = (np.arange(6000) % 11 + 1).astype(np.uint16)
    tokens[::97] = 0
    return Corpus(tokens, (HeldOut("made", tokens[:200], 400),), bytes_per_token=2.0, digest="made")


def _metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _accumulating(run: RunConfig, accumulate: int) -> RunConfig:
    return replace(run, stages=tuple(replace(stage, accumulate=accumulate) for stage in run.stages))


def _logging_all(run: RunConfig) -> RunConfig:
    return replace(run, schedule=replace(run.schedule, log_every=1))


def test_loss_falls_on_text_that_repeats(corpus: Corpus, tmp_path: Path) -> None:
    """After 40 steps the model knows the period, and the metrics say so."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    before = trainer.measure()["all"]
    assert trainer.train(NEVER)
    assert trainer.measure()["all"] < 0.5 * before
    lines = _metrics(tmp_path)
    assert [(line["step"], line["context"]) for line in lines if "held_out" in line] == [(20, 16), (40, 16)]


def test_metrics_tell_losses_norm_rate_and_speed(corpus: Corpus, tmp_path: Path) -> None:
    """Cross-entropy apart from the memory penalty, which is there in the stage that weighs it."""
    Trainer(RUN, corpus, tmp_path, "cpu").train(NEVER)
    lines = [line for line in _metrics(tmp_path) if "loss" in line]
    # The first step, and that of the second stage, are not timed.
    assert [line["step"] for line in lines] == [1, 10, 13, 20, 30, 40]
    assert [line["step"] for line in lines if "tokens_per_s" not in line] == [1, 13]
    assert [line["step"] for line in lines if "memory_penalty" in line] == [13, 20, 30, 40]
    assert lines[0]["loss"] == pytest.approx(np.log(24), abs=0.1)
    for line in lines:
        assert line["bits_per_byte"] == pytest.approx(line["loss"] / np.log(2) / 2.0)
        assert line["gradient_norm"] > 0
    assert lines[1]["rate"] == 0.02
    assert lines[5]["rate"] == pytest.approx(0.02 * (1 / 40) / 0.4)


@pytest.mark.parametrize("run", [RUN, ADAMW], ids=["muon", "adamw"])
def test_micro_batches_change_the_loss_curve_by_rounding_only(run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    """The same windows in 1, 2 and 4 parts: each of the 40 losses within 1e-5, and the same penalty."""
    curves = []
    for n in (1, 2, 4):
        (tmp_path / str(n)).mkdir()
        Trainer(_accumulating(_logging_all(run), n), corpus, tmp_path / str(n), "cpu").train(NEVER)
        lines = [line for line in _metrics(tmp_path / str(n)) if "loss" in line]
        curves.append([(line["loss"], line.get("memory_penalty", 0.0)) for line in lines])
    assert len(curves[0]) == 40
    for curve in curves[1:]:
        assert np.abs(np.array(curve) - curves[0]).max() <= 1e-5


def test_boundaries_weigh_the_same_in_every_micro_batch(tmp_path: Path) -> None:
    """A part with few targets counts by its targets, not by its windows: one step with most boundaries in one part."""
    tokens = np.concatenate([np.zeros(40), np.arange(200) % 11 + 1]).astype(np.uint16)
    corpus = Corpus(tokens, (HeldOut("made", tokens[50:90], 40),))
    run = replace(RUN, stages=(StageConfig(until=1.0, context=8, batch=28),))
    grown = []
    for n in (1, 28):
        trainer = Trainer(_accumulating(run, n), corpus, tmp_path, "cpu")
        trainer.take_step()
        grown.append(trainer._pending[0])
    torch.testing.assert_close(grown[1], grown[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("run", [RUN, ADAMW], ids=["muon", "adamw"])
@pytest.mark.parametrize("pause", [5, 12, 17])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    run: RunConfig, pause: int, corpus: Corpus, tmp_path: Path
) -> None:
    """Weights, momenta, order of the windows, stage and learning rates continue, before and after a stage's end."""
    whole = Trainer(run, corpus, tmp_path / "whole", "cpu")
    (tmp_path / "whole").mkdir()
    whole.train(NEVER)
    paused = Trainer(run, corpus, tmp_path, "cpu")
    for _ in range(pause):
        paused.take_step()
    # So that the random state is not the one that every new trainer begins with.
    torch.rand(7)
    paused.save()
    torch.manual_seed(999)
    resumed = Trainer(run, corpus, tmp_path, "cpu")
    resumed.load()
    assert resumed.step == pause
    assert torch.equal(torch.get_rng_state(), _saved_random_state(tmp_path))
    resumed.train(NEVER)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def _saved_random_state(out: Path) -> torch.Tensor:
    state = load_newest(out)
    assert state is not None
    random_state: torch.Tensor = state["random"]["cpu"]
    return random_state


def test_checkpoints_are_kept_as_the_run_says(corpus: Corpus, tmp_path: Path) -> None:
    """The newest three, and that of the end on top."""
    schedule = replace(RUN.schedule, save_every=6, keep=3)
    trainer = Trainer(replace(RUN, schedule=schedule), corpus, tmp_path, "cpu")
    trainer.train(NEVER)
    trainer.save(final=True)
    assert [path.name for path in checkpoint_paths(tmp_path)] == [f"step-{step:09d}.pt" for step in (40, 36, 30, 24)]


def test_run_pauses_when_its_time_is_up(corpus: Corpus, tmp_path: Path) -> None:
    """A pause is no end."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    assert not trainer.train(0.0)
    assert trainer.step == 0


def test_run_by_time_ends(corpus: Corpus, tmp_path: Path) -> None:
    """A run without a number of steps ends after its training time, having gone through its stages."""
    schedule = replace(RUN.schedule, steps=0, seconds=0.3, log_every=1)
    trainer = Trainer(replace(RUN, schedule=schedule), corpus, tmp_path, "cpu")
    assert trainer.train(NEVER)
    assert trainer.elapsed_s >= 0.3
    assert trainer.stage == 1


def test_run_by_time_ends_with_the_step_in_which_its_time_is_up(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far apart lines are: by a clock of one second a step, the first of each stage not counted."""
    schedule = replace(RUN.schedule, steps=0, seconds=10.0, log_every=1000, measure_every=1000)
    run = Trainer(replace(RUN, schedule=schedule), corpus, tmp_path, "cpu")
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: float(run.step)))
    assert run.train(NEVER)
    # 1 of the first stage is not counted, 2 to 4 bring its share of 0.3; 5 is not counted, 6 to 12 bring the rest.
    assert (run.step, run.elapsed_s, run.stage_step) == (12, 10.0, 4)
    assert [line.get("tokens_per_s") for line in _metrics(tmp_path)] == [None, None, 128]


def test_loss_that_is_not_finite_ends_the_run(corpus: Corpus, tmp_path: Path) -> None:
    """The error names the step, though it was noticed later, and the checkpoint from before is untouched."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    for _ in range(14):
        trainer.take_step()
    trainer.save()
    before = checkpoint_paths(tmp_path)[0].read_bytes()
    with torch.no_grad():
        trainer.model.norm.weight[3] = float("nan")
    with pytest.raises(DivergedError, match=r"^step 15: expected a finite loss and gradient, found loss nan"):
        trainer.train(NEVER)
    with pytest.raises(DivergedError, match="step 15"):
        trainer.save()
    assert [path.read_bytes() for path in checkpoint_paths(tmp_path)] == [before]


def test_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run can be continued from there when there is room again."""
    trainer = Trainer(RUN, corpus, tmp_path, "cpu")
    for _ in range(4):
        trainer.take_step()
    trainer.save()

    def _full(path: Path, *_parts: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_whole", _full)
        with pytest.raises(DiskFullError, match=r"step-000000020\.pt: checkpoint not written"):
            trainer.train(NEVER)
    resumed = Trainer(RUN, corpus, tmp_path, "cpu")
    resumed.load()
    assert resumed.step == 4
    assert resumed.train(NEVER)


def test_checkpoint_of_another_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """A changed run file does not continue what it did not begin; the first difference is named."""
    Trainer(RUN, corpus, tmp_path, "cpu").save()
    other = replace(RUN, schedule=replace(RUN.schedule, seed=6))
    with pytest.raises(ConfigError, match=r"run\.schedule\.seed: expected 6, found 5"):
        Trainer(other, corpus, tmp_path, "cpu").load()


def test_checkpoint_of_another_corpus_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """The position in the data means nothing in other data."""
    Trainer(RUN, corpus, tmp_path, "cpu").save()
    with pytest.raises(ConfigError, match="corpus: expected changed, found made"):
        Trainer(RUN, replace(corpus, digest="changed"), tmp_path, "cpu").load()


def test_checkpoint_from_before_there_was_a_key_continues(corpus: Corpus, tmp_path: Path) -> None:
    """What it does not name had its default."""
    Trainer(RUN, corpus, tmp_path, "cpu").save()
    state = load_newest(tmp_path)
    assert state is not None
    del state["run"]["start_from"]
    for stage in state["run"]["stages"]:
        del stage["memory_reduce"]
    save_checkpoint(state, tmp_path, 0, keep=1)
    Trainer(RUN, corpus, tmp_path, "cpu").load()
    other = replace(RUN, stages=(RUN.stages[0], replace(RUN.stages[1], memory_reduce="mean")))
    with pytest.raises(ConfigError, match=r"run\.stages: expected .*'mean'"):
        Trainer(other, corpus, tmp_path, "cpu").load()


class _Follower(Processes):
    """A process that is told by rank 0 to take the older of two checkpoints."""

    def first(self, work: Callable[[], T]) -> T:
        """Of what it finds itself, the one before."""
        return checkpoint_paths(work().parents[1])[1]  # type: ignore[attr-defined, return-value]


def test_all_processes_load_the_checkpoint_that_rank_0_finds(corpus: Corpus, tmp_path: Path) -> None:
    """Even where another one sees a newer one."""
    run = Trainer(RUN, corpus, tmp_path, "cpu")
    for _ in range(2):
        run.take_step()
        run.save()
    follower = Trainer(RUN, corpus, tmp_path, "cpu", _Follower())
    follower.load()
    assert follower.step == 1


def test_memory_penalty_is_reduced_as_the_stage_says(corpus: Corpus, tmp_path: Path) -> None:
    """The mean over the queries is less than the greatest, in the step's loss and in its weights."""
    penalties, weights = [], []
    for reduce in ("max", "mean"):
        stage = StageConfig(until=1.0, context=16, batch=8, memory_weight=0.5, memory_reduce=reduce)
        run = Trainer(replace(RUN, stages=(stage,)), corpus, tmp_path, "cpu")
        for _ in range(3):
            run.take_step()
        penalties.append([step[1].item() for step in run._pending])
        weights.append(run.model.state_dict()["layers.0.self_attn.q_proj.weight"])
    assert all(mean < greatest for greatest, mean in zip(*penalties, strict=True))
    assert not torch.equal(weights[0], weights[1])


def test_corpus_too_short_for_any_stage_is_refused_at_once(corpus: Corpus, tmp_path: Path) -> None:
    """Not when the run comes to that stage."""
    run = replace(RUN, stages=(RUN.stages[0], replace(RUN.stages[1], batch=400)))
    with pytest.raises(ConfigError, match="expected at least 400 windows of 16 tokens, found 374"):
        Trainer(run, corpus, tmp_path, "cpu")


def test_step_of_boundaries_alone_teaches_nothing(tmp_path: Path) -> None:
    """Its loss is 0, not 0 / 0."""
    tokens = np.zeros(500, dtype=np.uint16)
    trainer = Trainer(RUN, Corpus(tokens, (HeldOut("made", tokens[:20], 1),)), tmp_path, "cpu")
    trainer.take_step()
    assert trainer._pending[0].tolist() == [0.0, 0.0, 0.0]


def test_autocast_can_be_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    """In bfloat16 a step differs from one in float32, and still learns."""
    losses = []
    for mode in ("none", "bfloat16"):
        run = replace(RUN, schedule=replace(RUN.schedule, autocast=mode, steps=12, measure_every=12))
        (tmp_path / mode).mkdir()
        Trainer(run, corpus, tmp_path / mode, "cpu").train(NEVER)
        losses.append(next(line["loss"] for line in _metrics(tmp_path / mode) if line["step"] == 12))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
