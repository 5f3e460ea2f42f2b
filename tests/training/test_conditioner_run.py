# ruff: noqa: TID253
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmzip.errors import ConfigError, DivergedError
from llmzip_training.conditioner_run import ConditionerRun
from llmzip_training.metrics import read_metrics
from llmzip_training.run_file import ScheduleConfig


class _Countdown(ConditionerRun):
    """Counts its steps; its measured values are given."""

    def __init__(self, out: Path, measured: list[float], patience: int = 0, steps: int = 12, loss: float = 1.0) -> None:
        schedule = ScheduleConfig(steps=steps, log_every=2, measure_every=2)
        super().__init__(out, schedule, {"kind": "countdown", "patience": patience}, patience)
        self.count = torch.zeros(1)
        self._measured, self._loss = measured, loss

    def take_step(self) -> dict[str, float]:
        self.count += 1
        return {"loss": self._loss, "tokens": 5}

    def measure(self) -> tuple[float, dict[str, Any]]:
        value = self._measured[self.step // 2 - 1]
        return value, {"held_out": {"all": value}}

    def values(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def state(self) -> dict[str, Any]:
        return {"more": 1}

    def restore(self, state: dict[str, Any]) -> None:
        self.count = state["values"]["count"]


def test_early_stop_keeps_the_best(tmp_path: Path) -> None:
    """The run ends after the measurements without gain that it has patience for."""
    run = _Countdown(tmp_path, [3.0, 1.0, 2.0, 2.0, 0.5, 0.1], patience=2)
    assert run.train()
    assert run.step == 8
    assert run.best == (1.0, {"count": torch.tensor([4.0])})


def test_without_patience_it_goes_to_the_end(tmp_path: Path) -> None:
    """Keeping the best all the same."""
    run = _Countdown(tmp_path, [3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    assert run.train()
    assert (run.step, run.best) == (12, (1.0, {"count": torch.tensor([4.0])}))
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if "held_out" in line] == [2, 4, 6, 8, 10, 12]
    assert all({"loss", "tokens_per_s"} <= line.keys() for line in lines if "held_out" not in line)


def test_continued_run_knows_its_best_and_its_patience(tmp_path: Path) -> None:
    """As if it had not been interrupted."""
    first = _Countdown(tmp_path, [3.0, 1.0, 2.0], patience=2)
    for _ in range(3):
        for _ in range(2):
            first.advance()
        first.note(first.measure()[0])
    first.save()
    second = _Countdown(tmp_path, [9.0, 9.0, 9.0, 2.0], patience=2)
    assert second.train()
    assert (second.step, second.best) == (8, (1.0, {"count": torch.tensor([4.0])}))


def test_pause_takes_no_step(tmp_path: Path) -> None:
    """The clock is past it already; what there is is saved."""
    run = _Countdown(tmp_path, [])
    assert not run.train(pause_at=-math.inf)
    assert run.step == 0
    assert list((tmp_path / "checkpoints").iterdir())


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """By what differs."""
    _Countdown(tmp_path, [], patience=1).train(pause_at=-math.inf)
    with pytest.raises(ConfigError, match="another run: patience: expected 2, found 1"):
        _Countdown(tmp_path, [], patience=2).train()


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """Before it is saved."""
    with pytest.raises(DivergedError, match="step 1"):
        _Countdown(tmp_path, [], loss=math.nan).train()
    assert not (tmp_path / "checkpoints").exists()
