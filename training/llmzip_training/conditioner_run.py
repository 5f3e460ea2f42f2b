# ruff: noqa: TID253
"""Runs that train conditioners: steps, measurements, early stop, checkpoints; imports torch, loaded lazily as a whole.

What a step and a measurement are is decided by `steering` and `codebook`. All randomness is a function of the seed and
the step, so a run by steps that is continued is the uninterrupted one, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmzip.errors import ConfigError, DivergedError
from llmzip_training.checkpoint import load_newest, save_checkpoint
from llmzip_training.report import Reporter
from llmzip_training.run_file import ScheduleConfig


class ConditionerRun(ABC):
    """A run in progress.

    Args:
        out: its folder, for checkpoints and metrics.
        schedule: how long it is, and when it reports.
        identity: everything that its result depends on.
        patience: measurements without gain after which it ends; 0 to go on.

    Attributes:
        step: steps so far.
        elapsed_s: training time so far.
        best: the measured value that was lowest, and the rows that it was measured with.
    """

    def __init__(self, out: Path, schedule: ScheduleConfig, identity: dict[str, Any], patience: int) -> None:
        self.out = out
        self.schedule = schedule
        self.step = 0
        self.elapsed_s = 0.0
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self._identity = identity
        self._patience = patience
        self._n_stale = 0
        self._pending: list[dict[str, float]] = []
        self._told_s = 0.0

    @abstractmethod
    def take_step(self) -> dict[str, float]:
        """Take a step; `loss` in nats a token, `tokens` that it learnt from, and more to report."""

    @abstractmethod
    def measure(self) -> tuple[float, dict[str, Any]]:
        """What is to be lowest, and what to report of it."""

    @abstractmethod
    def values(self) -> dict[str, Tensor]:
        """What is trained; `best` keeps a copy."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a later process needs beside that."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take back `values` and `state`."""

    @property
    def progress(self) -> float:
        """The done share of the run, in steps or in training time."""
        schedule = self.schedule
        return self.step / schedule.steps if schedule.steps else min(1.0, self.elapsed_s / schedule.seconds)

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do."""
        return self.progress >= 1.0 or 0 < self._patience <= self._n_stale

    def train(self, pause_at: float = math.inf) -> bool:
        """Go on until the end, or until the clock `time.monotonic()` shows `pause_at`; True at the end.

        Raises:
            ConfigError: the folder holds a checkpoint of another run.
            DivergedError: a loss is not finite.
            FileError: a checkpoint is damaged or cannot be written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.load()
        reporter = Reporter(self.out, self.schedule, self.step, self.progress)
        try:
            while not self.finished and time.monotonic() < pause_at:
                self._advance(reporter)
        finally:
            reporter.close()
        self.save()
        return self.finished

    def advance(self) -> dict[str, float]:
        """Take a step and count it; what it reports."""
        clock = time.monotonic()
        facts = self.take_step()
        self.step += 1
        self.elapsed_s += time.monotonic() - clock
        if not math.isfinite(facts["loss"]):
            raise DivergedError(f"step {self.step}: expected a finite loss, found {facts['loss']}; try a lower rate")
        return facts

    def save(self) -> None:
        """Write a checkpoint."""
        best = None if self.best is None else {"value": self.best[0], "values": self.best[1]}
        facts = {"identity": self._identity, "step": self.step, "elapsed_s": self.elapsed_s, "best": best}
        facts |= {"n_stale": self._n_stale, "values": self.values(), "state": self.state()}
        save_checkpoint(facts, self.out, self.step, self.schedule.keep)

    def load(self) -> None:
        """Continue from the newest whole checkpoint, if there is one; its run must be this one."""
        facts = load_newest(self.out)
        if facts is None:
            return
        for key in sorted(self._identity.keys() | facts["identity"].keys()):
            expected, found = self._identity.get(key), facts["identity"].get(key)
            if expected != found:
                raise ConfigError(
                    f"checkpoint of another run: {key}: expected {expected}, found {found}; use another --out"
                )
        self.step, self.elapsed_s, self._n_stale = facts["step"], facts["elapsed_s"], facts["n_stale"]
        self._told_s = self.elapsed_s
        self.best = None if facts["best"] is None else (facts["best"]["value"], facts["best"]["values"])
        self.restore(facts)

    def note(self, value: float) -> None:
        """Keep what is trained if `value` is the lowest so far; else count towards the early stop."""
        if self.best is None or value < self.best[0]:
            self.best = value, {name: tensor.detach().clone() for name, tensor in self.values().items()}
            self._n_stale = 0
        else:
            self._n_stale += 1

    def _advance(self, reporter: Reporter) -> None:
        self._pending.append(self.advance())
        measures = self._due(self.schedule.measure_every) or self.progress >= 1.0
        if measures or self._due(self.schedule.log_every):
            self._report(reporter, self._settle())
        if measures:
            value, facts = self.measure()
            self.note(value)
            self._report(reporter, facts)
        if self._due(self.schedule.save_every or self.schedule.measure_every):
            self.save()

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _settle(self) -> dict[str, float]:
        pending, self._pending = self._pending, []
        means = {name: sum(one[name] for one in pending) / len(pending) for name in pending[0] if name != "tokens"}
        speed = sum(one["tokens"] for one in pending) / max(self.elapsed_s - self._told_s, 1e-9)
        self._told_s = self.elapsed_s
        return means | {"tokens_per_s": round(speed)}

    def _report(self, reporter: Reporter, facts: dict[str, Any]) -> None:
        line = {"step": self.step, "elapsed_s": round(self.elapsed_s, 3), **facts}
        reporter.report(line, self.progress, self.elapsed_s)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, progress: float) -> None:
    """Take the step of an optimiser; learning rates fall linearly, from `peak` of each group of parameters to 0."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * (1.0 - min(progress, 1.0))
    optimiser.step()
