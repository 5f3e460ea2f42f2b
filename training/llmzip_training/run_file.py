"""Reads run files: one TOML file fixes everything about a run but its folders and its machine.

Imports torch by way of the model and the optimiser, whose tables are defined beside what they configure.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from llmzip.errors import ConfigError
from llmzip_training.config import build, expect_at_least, expect_share
from llmzip_training.model import ModelConfig
from llmzip_training.optimiser import OptimiserConfig
from llmzip_training.start import StartConfig
from llmzip_training.tokenizer import expect_vocab_size

MAX_SEED = 2**31 - 2**10


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run is, and when it reports.

    A run ends after `steps` steps, or, where `seconds` is not 0, after that much training time,
    and the learning rate follows the same measure. Runs by steps are repeatable, runs by time
    use a rented machine to the end.

    Attributes:
        steps, seconds: the end; one of them.
        seed: initial weights and the order of documents and windows.
        log_every: steps between lines of metrics.
        measure_every: steps between measurements of held-out text.
        measure_windows: what such a measurement takes of each shard: its first tokens, this many times the
            model's context; 0 for all of them. The stage does not matter.
        save_every: steps between checkpoints; 0 for one at each measurement.
        keep: how many checkpoints are kept; that of the end of the run comes on top.
        autocast: `bfloat16` or `none`; `auto` is bfloat16 on a GPU and none on a CPU.
        compile: use `torch.compile`.
        kernels: `none` for the eager code of selective attention everywhere; `auto` is Triton kernels on a GPU.
    """

    steps: int = 0
    seconds: float = 0.0
    seed: int = 0
    log_every: int = 50
    measure_every: int = 1000
    measure_windows: int = 0
    save_every: int = 0
    keep: int = 2
    autocast: Literal["auto", "bfloat16", "none"] = "auto"
    compile: bool = False
    kernels: Literal["auto", "none"] = "auto"

    def __post_init__(self) -> None:
        """Refuse a run that has no end or two, and numbers out of range."""
        for name in ("steps", "seconds", "seed", "measure_windows", "save_every"):
            expect_at_least(f"schedule.{name}", getattr(self, name), 0)
        for name in ("log_every", "measure_every", "keep"):
            expect_at_least(f"schedule.{name}", getattr(self, name), 1)
        if (self.steps > 0) == (self.seconds > 0):
            raise ConfigError(f"schedule: expected one of steps and seconds, found {self.steps} and {self.seconds}")
        if self.seed > MAX_SEED:
            raise ConfigError(f"schedule.seed: expected at most {MAX_SEED}, found {self.seed}")


@dataclass(frozen=True)
class StageConfig:
    """A part of a run: windows of `context` tokens, `batch` of them a step, up to `until` of the run's progress.

    `memory_weight` times the memory penalty is added to the loss of selective models; `memory_reduce` says whether
    that is of the query that keeps most, `max`, or the mean over the queries. Every process goes through its windows
    of a step in `accumulate` micro-batches, which changes the memory needed and nothing else.
    """

    until: float
    context: int
    batch: int
    memory_weight: float = 0.0
    accumulate: int = 1
    memory_reduce: Literal["max", "mean"] = "max"

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and micro-batches that are not whole."""
        expect_share("stage until", self.until)
        for name in ("context", "batch", "accumulate"):
            expect_at_least(f"stage {name}", getattr(self, name), 1)
        expect_at_least("stage memory_weight", self.memory_weight, 0)
        self.micro_batch(1)

    def micro_batch(self, n_processes: int) -> int:
        """Windows that one process takes at once.

        Raises:
            ConfigError: the windows of a step cannot be dealt out evenly.
        """
        n_parts = n_processes * self.accumulate
        if self.batch % n_parts:
            raise ConfigError(
                f"stage batch: expected a multiple of {n_parts} (processes times accumulate), found {self.batch}"
            )
        return self.batch // n_parts


@dataclass(frozen=True)
class CorpusConfig:
    """What is trained on: of each shard the named share of its documents, 1 where none is named."""

    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse shares below nothing and above all."""
        for name, share in self.shares.items():
            expect_share(f"corpus.shares.{name}", share)


@dataclass(frozen=True)
class RunConfig:
    """One run: the tables of a run file."""

    model: ModelConfig
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    stages: tuple[StageConfig, ...]
    corpus: CorpusConfig = CorpusConfig()
    start_from: StartConfig = field(default_factory=StartConfig)

    def __post_init__(self) -> None:
        """Refuse stages that do not cover the run, or do not fit the model."""
        if not self.stages:
            raise ConfigError("stages: expected at least one, found none")
        ends = [stage.until for stage in self.stages]
        if any(later <= earlier for earlier, later in pairwise([0.0, *ends])) or ends[-1] != 1.0:
            raise ConfigError(f"stages: expected `until` to rise from above 0 to 1.0, found {ends}")
        for stage in self.stages:
            if stage.context > self.model.context:
                raise ConfigError(f"stages: expected a context of at most {self.model.context}, found {stage.context}")
            if stage.memory_weight and self.model.attention != "selective":
                raise ConfigError(
                    f"stages: expected memory_weight 0 for a model with {self.model.attention} attention, "
                    f"found {stage.memory_weight:g}"
                )


def load_run(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ConfigError: no TOML; a table or key is missing or unknown, or of the wrong type or out of range; or a table
            contradicts itself or another.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: expected TOML, found something else: {error}") from error
    try:
        run = build(RunConfig, tables, "run file")
        expect_vocab_size(run.model.vocab_size)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return run
