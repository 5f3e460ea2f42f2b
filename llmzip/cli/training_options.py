"""What the commands that train conditioners have in common: options, and what these say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzip.errors import BackendError

if TYPE_CHECKING:
    from llmzip_training.job import Job
    from llmzip_training.run_file import ScheduleConfig

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of this run; continued if it has checkpoints.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Name, id or folder; default: the bundled.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of shards, *.txt.zst.")]
Train = Annotated[list[Path] | None, typer.Option("--train", metavar="FILE", help="Train on it; can be repeated.")]
HeldOut = Annotated[
    list[Path] | None, typer.Option("--held-out", metavar="FILE", help="With --train: measure on it; can be repeated.")
]
Bytes = Annotated[int, typer.Option("--bytes", min=1, help="Of training text that is taken from shards.")]
Variants = Annotated[
    int,
    typer.Option("--variants", metavar="N", min=0, help="Give one document of shards in N other line ends, capitals."),
]
Prefix = Annotated[int, typer.Option("--prefix", metavar="N", min=0, help="Rows of the soft prompt.")]
Shifts = Annotated[bool, typer.Option("--shifts/--no-shifts", help="Steering rows, one a layer and one more.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Length; default: what suits the text.")]
Seconds = Annotated[float, typer.Option("--seconds", min=0, help="Length in training time instead.")]
MeasureEvery = Annotated[int, typer.Option("--measure-every", min=1, help="Steps between measurements.")]
Patience = Annotated[int, typer.Option("--patience", min=0, help="Measurements without gain until the end; 0: never.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")]
PauseAfter = Annotated[float, typer.Option("--pause-after", metavar="S", min=0, help="Seconds until the run pauses.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; default: a GPU where there is one.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the CPU.")]


def expect_trainer() -> None:
    """Refuse to train where the trainer or torch is not installed; looking for them costs nothing."""
    from importlib.util import find_spec

    for name in ("llmzip_training", "torch"):
        if find_spec(name) is None:
            raise BackendError(f"training needs {name}, which is not installed: pip install 'llmzip[train]'")


def make_job(
    out: Path,
    model: str | None,
    text: Path | None,
    data: Path | None,
    train: list[Path] | None,
    held_out: list[Path] | None,
    n_bytes: int,
    variants: int,
    device: str | None,
    threads: int | None,
    pause_after: float,
) -> Job:
    """Where, on what and for which model; the first that a command asks for.

    Raises:
        BackendError: there is no trainer.
        ConfigError: no text, or text from several places.
    """
    expect_trainer()
    from llmzip_training.job import Job

    files = (tuple(train or ()), tuple(held_out or ()))
    return Job(out, model, text, data, *files, n_bytes, variants, device, threads, pause_after)


def make_schedule(steps: int, seconds: float, seed: int, measure_every: int, windows: int) -> ScheduleConfig:
    """How long a run is: `seconds`, or `steps` where these are 0."""
    from llmzip_training.run_file import ScheduleConfig

    return ScheduleConfig(0 if seconds else steps, seconds, seed, 10, measure_every, windows)
