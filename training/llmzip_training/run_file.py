"""Reads run files: one TOML file fixes everything about a run but its folders and its machine."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from llmzip.errors import ConfigError
from llmzip_training.model import ModelConfig
from llmzip_training.optimiser import OptimiserConfig

T = TypeVar("T")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run is and what a step holds.

    A run ends after `steps` steps, or, where `seconds` is not 0, after that much training time,
    and the learning rate follows the same measure. Runs by steps are repeatable, runs by time
    use a rented machine to the end.
    """

    batch: int
    steps: int = 0
    seconds: float = 0.0
    seed: int = 0
    log_every: int = 50
    measure_every: int = 1000
    measure_windows: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse a run that has no end or two."""
        if (self.steps > 0) == (self.seconds > 0):
            raise ConfigError(f"schedule: expected one of steps and seconds, found {self.steps} and {self.seconds}")


@dataclass(frozen=True)
class RunConfig:
    """One run: the tables `[model]`, `[optimiser]` and `[schedule]` of a run file."""

    model: ModelConfig
    optimiser: OptimiserConfig
    schedule: ScheduleConfig


def load_run(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ConfigError: a table or key is missing or unknown, or a table contradicts itself.
    """
    tables = tomllib.loads(path.read_text())
    return _build(RunConfig, {name: _table(name, table) for name, table in tables.items()}, str(path))


def _table(name: str, values: dict[str, Any]) -> object:
    kinds = {"model": ModelConfig, "optimiser": OptimiserConfig, "schedule": ScheduleConfig}
    if name not in kinds:
        raise ConfigError(f"run file: expected the tables {', '.join(kinds)}, found [{name}]")
    return _build(kinds[name], values, f"[{name}]")


def _build(kind: type[T], values: dict[str, Any], where: str) -> T:
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    required = {name for name, field in known.items() if field.default is MISSING}
    if unknown := sorted(values.keys() - known.keys()):
        raise ConfigError(f"{where}: expected only {', '.join(known)}, found {', '.join(unknown)}")
    if missing := sorted(required - values.keys()):
        raise ConfigError(f"{where}: expected {', '.join(missing)}, found nothing")
    return kind(**values)
