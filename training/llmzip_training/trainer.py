# ruff: noqa: TID253
"""Takes the steps of a run; imports torch, so it is loaded lazily as a whole.

A step's loss is a sum over its windows, put together from micro-batches and processes: each divides by the
targets of the whole step, so that how the windows are dealt out changes nothing but rounding. Losses stay on the
device until a line of metrics is due; there, and so before any checkpoint, they are checked to be finite.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmzip.errors import ConfigError, DivergedError
from llmzip_training.checkpoint import find_newest, load_checkpoint, save_checkpoint
from llmzip_training.config import build
from llmzip_training.corpus import END_OF_DOCUMENT, Corpus
from llmzip_training.distributed import ALONE, Processes
from llmzip_training.evaluate import autocast, micro_batch_losses, shard_bits_per_byte
from llmzip_training.model import LanguageModel, use_kernels
from llmzip_training.optimiser import make_optimisers, rate_share, set_rates
from llmzip_training.report import Reporter
from llmzip_training.run_file import RunConfig, StageConfig
from llmzip_training.start import starting_weights
from llmzip_training.windows import WindowSampler, window_inputs


class Trainer:
    """A run in progress: the model, its optimisers, the step, the stage and the training time so far.

    Args:
        run: what to train, and how.
        corpus: on what.
        out: folder of the run.
        device: where the model is.
        processes: who shares the work.

    Raises:
        ConfigError: the corpus is too short for a stage, or a step's windows cannot be dealt out evenly.
    """

    def __init__(self, run: RunConfig, corpus: Corpus, out: Path, device: str, processes: Processes = ALONE) -> None:
        torch.manual_seed(run.schedule.seed)
        self.run = run
        self.corpus = corpus
        self.out = out
        self.device = device
        self.processes = processes
        self.step = 0
        self.elapsed_s = 0.0
        self.stage = -1
        self.stage_step = 0
        self._samplers = [self._sampler(i) for i in range(len(run.stages))]
        self.model = LanguageModel(run.model).to(device)
        use_kernels(self.model, run.schedule.kernels == "auto")
        self.optimisers = make_optimisers(self.model, run.optimiser)
        self._losses = torch.compile(micro_batch_losses, dynamic=False) if run.schedule.compile else micro_batch_losses
        # Cross-entropy, memory penalty and gradient norm of each step since the last line of metrics.
        self._pending: list[Tensor] = []
        self._pending_tokens = 0
        # Training time at the last line of metrics.
        self._told_s = 0.0

    @property
    def progress(self) -> float:
        """The done share of the run, in steps or in training time as the run file says."""
        schedule = self.run.schedule
        return self.step / schedule.steps if schedule.steps else min(1.0, self.elapsed_s / schedule.seconds)

    def train(self, pause_at: float) -> bool:
        """Train until the run ends or the clock `time.monotonic()` shows `pause_at`; True at the end.

        The first step of each stage and call compiles and is not counted as training time; nor are measuring and
        saving.

        Raises:
            DivergedError: a loss is not finite.
        """
        reporter = None
        if self.processes.is_main:
            reporter = Reporter(self.out, self.run.schedule, self.step, self.progress)
        try:
            self._train(pause_at, reporter)
        finally:
            if reporter:
                reporter.close()
        return self.progress >= 1.0

    def _train(self, pause_at: float, reporter: Reporter | None) -> None:
        schedule = self.run.schedule
        timed_stage, clock = -1, 0.0
        while self.progress < 1.0 and not self.processes.agree(time.monotonic() >= pause_at):
            self.take_step()
            compiled = self.stage != timed_stage
            measures = self._due(schedule.measure_every)
            saves = self._due(schedule.save_every or schedule.measure_every)
            if not compiled:
                clock = self._count_time(clock)
            if compiled or measures or saves or self._due(schedule.log_every):
                self._report(reporter, self._settle(None if compiled else clock))
                timed_stage = self.stage
                if measures:
                    held_out = self.measure(schedule.measure_windows * self.run.model.context)
                    self._report(reporter, {"held_out": held_out, "context": self._stage_config().context})
                if saves:
                    self.save()
                clock = time.monotonic()
        if self._pending:
            self._report(reporter, self._settle(clock))

    def take_step(self) -> None:
        """Learn from the windows of this step."""
        self._enter_stage()
        config = self._stage_config()
        targets = self._samplers[self.stage].targets(self.step - self.stage_step)
        set_rates(self.optimisers, rate_share(self.run.optimiser, self.step, self.progress))
        losses = self._learn(targets, config)
        self.processes.sum_gradients(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.run.optimiser.clip_norm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self._pending.append(torch.cat((losses, norm.detach()[None])))
        self._pending_tokens += targets.numel()

    def measure(self, n_tokens: int = 0) -> dict[str, float]:
        """Bits per byte of the held-out text by shard, or of the first `n_tokens` of each."""
        context = self._stage_config().context
        with autocast(self.device, self.run.schedule.autocast):
            return shard_bits_per_byte(self.model, self.corpus.held_out, context, self.device, n_tokens, self.processes)

    def save(self, *, final: bool = False) -> None:
        """Write a checkpoint; one of the end displaces no other.

        Raises:
            DivergedError: the weights come from a loss that is not finite.
            FileError: it cannot be written; earlier ones are as they were.
        """
        self.expect_finite()
        if self.processes.is_main:
            save_checkpoint(self._state(), self.out, self.step, self.run.schedule.keep + final)

    def load(self) -> None:
        """Continue from the newest checkpoint that is whole, or begin with the weights that the run file names.

        Rank 0 looks for the checkpoint, and all read the one that it finds.

        Raises:
            ConfigError: it belongs to another run or corpus, or the named weights do not fit the model.
            FileError: all checkpoints are damaged.
        """
        path = self.processes.first(lambda: find_newest(self.out))
        if path:
            self._resume(load_checkpoint(path))
        elif self.run.start_from.folder:
            start, seed = self.run.start_from, self.run.schedule.seed
            self.model.load_state_dict(starting_weights(self.run.model, start, seed))

    def _resume(self, state: dict[str, Any]) -> None:
        _expect_same("run", asdict(self.run), asdict(build(RunConfig, state["run"], "checkpoint")))
        _expect_same("corpus", self.corpus.digest, state["corpus"])
        self.step = state["step"]
        self.elapsed_s = self._told_s = state["elapsed_s"]
        self.stage, self.stage_step = state["stage"], state["stage_step"]
        self.model.load_state_dict(state["model"])
        for optimiser, optimiser_state in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(optimiser_state)
        _set_random_states(state["random"])

    def _state(self) -> dict[str, Any]:
        """All that a later process needs; the windows to come follow from `step` and `stage_step`."""
        return {
            "run": asdict(self.run),
            "corpus": self.corpus.digest,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "stage": self.stage,
            "stage_step": self.stage_step,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "random": _random_states(),
        }

    def _sampler(self, stage: int) -> WindowSampler:
        config = self.run.stages[stage]
        config.micro_batch(self.processes.world)
        return WindowSampler(self.corpus.tokens, config.context, config.batch, self.run.schedule.seed + stage)

    def _stage_config(self) -> StageConfig:
        return self.run.stages[max(self.stage, 0)]

    def _enter_stage(self) -> None:
        stage = next(i for i, stage in enumerate(self.run.stages) if self.progress < stage.until)
        if stage != self.stage:
            self.stage, self.stage_step = stage, self.step

    def _learn(self, targets: Tensor, config: StageConfig) -> Tensor:
        """Add up the gradients of this process's micro-batches; its part of cross-entropy and penalty, `[2]`."""
        size = config.micro_batch(self.processes.world)
        first = self.processes.rank * config.accumulate
        n_targets = max(1, int((targets != END_OF_DOCUMENT).sum()))
        memory_reduce = config.memory_reduce if config.memory_weight else None
        total = torch.zeros(2, device=self.device)
        for part in torch.split(targets, size)[first : first + config.accumulate]:
            own = part.to(self.device)
            with autocast(self.device, self.run.schedule.autocast):
                nats, penalty = self._losses(self.model, window_inputs(own), own, memory_reduce)
            parts = torch.stack((nats / n_targets, penalty * (size / config.batch)))
            (parts[0] + config.memory_weight * parts[1]).backward()  # type: ignore[no-untyped-call]
            total += parts.detach()
        return total

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _count_time(self, clock: float) -> float:
        """Add the time since `clock` to the training time; the time now.

        Where the run ends by its training time, all take that of rank 0, so that they end at the same step.
        """
        now = time.monotonic()
        self.elapsed_s += now - clock
        if self.run.schedule.seconds:
            self.elapsed_s = self.processes.agree(self.elapsed_s)
        return now

    def _settle(self, clock: float | None) -> dict[str, float]:
        """Sum up the steps since the last line of metrics; without a `clock` their speed is not told.

        Only here is known that a GPU has done what it was asked to, so its time since `clock` is counted again.
        """
        values = torch.stack(self._pending).cpu()
        values[:, :2] = self.processes.sum(values[:, :2].contiguous())
        self._expect_finite(values.tolist())
        loss, penalty, _ = values.mean(dim=0).tolist()
        facts = {"loss": loss, "bits_per_byte": loss / math.log(2) / self.corpus.bytes_per_token}
        if self._stage_config().memory_weight:
            facts["memory_penalty"] = penalty
        facts |= {"gradient_norm": values[-1, 2].item(), "rate": self.optimisers[0].param_groups[0]["lr"]}
        if clock is not None:
            self._count_time(clock)
            facts["tokens_per_s"] = round(self._pending_tokens / (self.elapsed_s - self._told_s))
        self._pending.clear()
        self._pending_tokens, self._told_s = 0, self.elapsed_s
        return facts

    def expect_finite(self) -> None:
        """Refuse to go on with weights that come from a loss that is not finite, as DivergedError."""
        if self._pending:
            self._expect_finite(torch.stack(self._pending).tolist())

    def _expect_finite(self, values: list[list[float]]) -> None:
        for i, (loss, penalty, norm) in enumerate(values):
            if not math.isfinite(loss + penalty + norm):
                step = self.step - len(values) + i + 1
                raise DivergedError(
                    f"step {step}: expected a finite loss and gradient, found loss {loss}, memory penalty {penalty}, "
                    f"gradient norm {norm}; earlier checkpoints are whole; try a lower learning rate"
                )

    def _report(self, reporter: Reporter | None, facts: dict[str, Any]) -> None:
        if reporter:
            line = {"step": self.step, "elapsed_s": round(self.elapsed_s, 3), **facts}
            reporter.report(line, self.progress, self.elapsed_s)


def _expect_same(name: str, expected: Any, found: Any) -> None:
    """Refuse a checkpoint that belongs to something else, naming the first difference."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            _expect_same(f"{name}.{key}", expected.get(key), found.get(key))
    elif expected != found:
        raise ConfigError(f"checkpoint of another run: {name}: expected {expected}, found {found}; use another --out")


def _random_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
