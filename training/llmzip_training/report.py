"""Gives what a run reports to its metrics and to people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmzip_training.metrics import MetricsWriter
from llmzip_training.progress import ProgressDisplay
from llmzip_training.run_file import ScheduleConfig


class Reporter:
    """Writes and shows the lines of a run.

    Args:
        out: folder of the run.
        schedule: how long the run is.
        step: the step that it continues from.
        progress: its done share.
    """

    def __init__(self, out: Path, schedule: ScheduleConfig, step: int, progress: float) -> None:
        total, unit = (schedule.steps, "step") if schedule.steps else (schedule.seconds, "s")
        self._schedule = schedule
        self._total = float(total)
        self._metrics = MetricsWriter(out, step)
        self._display = ProgressDisplay(self._total, unit, progress * self._total)

    def report(self, facts: Mapping[str, Any], progress: float, elapsed_s: float) -> None:
        """Write and show a line; the done share of the run and its training time tell how much is left."""
        self._metrics.write(facts)
        left_s = elapsed_s * (1 / progress - 1) if progress else self._schedule.seconds
        self._display.show(facts, progress * self._total, left_s)

    def close(self) -> None:
        """Let go of files and terminal."""
        self._metrics.close()
        self._display.close()
