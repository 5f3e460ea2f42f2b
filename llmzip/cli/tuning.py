"""`llmzip compress --tune`: a steering vector that is trained on the input itself, and embedded where it pays."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmzip.cli.training_options import expect_trainer
from llmzip.errors import ConfigError

if TYPE_CHECKING:
    from llmzip.options import CompressOptions, MakeTrainer


@contextmanager
def tuned(source: str, chosen: CompressOptions, seconds: float, *, quiet: bool) -> Iterator[CompressOptions]:
    """The options of a run under a conditioner for this file; unchanged where none pays for itself.

    Args:
        source: a file; it is read once more to be compressed.
        chosen: what the user asked for.
        seconds: how long is trained.
        quiet: say nothing of it.

    Raises:
        ConfigError: there is no file to read twice, or conditioners are named too.
    """
    if chosen.conditioners is not None:
        raise ConfigError("--tune: expected no conditioners beside what it makes, found -D")
    if chosen.chunk_trainer is not None:
        raise ConfigError("--tune: expected either one vector or one for each chunk, found --tune-chunks")
    if not Path(source).is_file() or not Path(source).stat().st_size:
        raise ConfigError(f"--tune: expected a file with text, found {source}")
    with tempfile.TemporaryDirectory(prefix="llmzip-tune-") as folder:
        file = _train(Path(source), chosen.model, seconds, Path(folder), chosen.threads)
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        if not quiet:
            verdict = "embedded" if report["pays"] else "left out, for it does not pay"
            typer.echo(f"{source}: steering vector, about {report['net_gain']:.1%} net, {verdict}", err=True)
        yield chosen.embedding(str(file)) if report["pays"] else chosen


def chunk_trainer(seconds: float, threads: int | None) -> MakeTrainer:
    """What makes the trainer of `--tune-chunks`: so many seconds a chunk, on so many threads."""
    expect_trainer()
    from llmzip_training.chunk_vectors import ChunkVectorsConfig, trainer_for

    config = ChunkVectorsConfig(seconds)
    return lambda artefact, windowing, network: trainer_for(config, artefact, windowing, network, threads)


def _train(source: Path, model: str | None, seconds: float, folder: Path, threads: int | None) -> Path:
    expect_trainer()
    from llmzip_training.conditioner_jobs import train_steering
    from llmzip_training.job import Job
    from llmzip_training.run_file import ScheduleConfig
    from llmzip_training.steering import SteeringConfig

    schedule = ScheduleConfig(0, seconds, log_every=1 << 30, measure_every=25, measure_windows=64, save_every=1 << 30)
    # What training says of itself is no part of an archive that goes to standard output.
    with redirect_stdout(io.StringIO()):
        train_steering(Job(folder, model, source, threads=threads), SteeringConfig(schedule), None)
    return folder / "conditioner.cond"
