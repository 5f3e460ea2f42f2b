"""`llmzip train steering`, `codebook` and `memory`: what conditions a model, from text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from llmzip.cli.training_options import (
    Bytes,
    Data,
    Device,
    HeldOut,
    MeasureEvery,
    Model,
    Out,
    Patience,
    PauseAfter,
    Prefix,
    Seconds,
    Seed,
    Shifts,
    Steps,
    Threads,
    Train,
    Variants,
    expect_trainer,
    make_job,
    make_schedule,
)


def steering(
    out: Out,
    model: Model = None,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="Train on what is to be compressed, for its total.")
    ] = None,
    data: Data = None,
    train: Train = None,
    held_out: HeldOut = None,
    n_bytes: Bytes = 8_000_000,
    prefix: Prefix = 0,
    shifts: Shifts = True,
    initial: Annotated[str, typer.Option("--initial", help="Of prompts: text (embeddings of its tokens), random.")] = (
        "text"
    ),
    steps: Steps = None,
    seconds: Seconds = 0.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows in a step.")] = 8,
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens in a window.")] = 512,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate, in deviations of the embeddings.")] = 0.3,
    rate_weight: Annotated[float, typer.Option("--lambda", min=0, help="Weight of the conditioner's own bits.")] = 1.0,
    noise: Annotated[
        str, typer.Option("--noise", help="In place of rounding: uniform, or rounded itself.")
    ] = "uniform",
    hyperprior: Annotated[
        str, typer.Option("--hyperprior", help="To code it under: gaussian, empirical, lloyd-max, learned.")
    ] = "gaussian",
    network: Annotated[
        Path | None, typer.Option("--network", metavar="FILE", help="Of a learned one, by `train hyperprior`.")
    ] = None,
    measure_every: MeasureEvery = 50,
    windows: Annotated[int, typer.Option("--windows", min=0, help="Windows to measure on; 0: all.")] = 64,
    patience: Patience = 0,
    seed: Seed = 0,
    pause_after: PauseAfter = math.inf,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train one conditioner, on a text itself or for all of a kind; the same command continues a run."""
    job = make_job(out, model, text, data, train, held_out, n_bytes, 0, device, threads, pause_after)
    # How many steps suit the text is known when it has been read.
    schedule = make_schedule(steps or 1, seconds, seed, measure_every, windows)
    from llmzip_training.conditioner_jobs import train_steering
    from llmzip_training.steering import SteeringConfig

    options: dict[str, Any] = {"initial": initial, "context": context, "batch": batch, "rate": rate}
    options |= {"rate_weight": rate_weight, "noise": noise, "patience": patience}
    train_steering(job, SteeringConfig(schedule, prefix, shifts, **options), steps, hyperprior, network)


def string(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Up to 256 tokens.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")],
    model: Model = None,
) -> None:
    """Write a fixed string as a conditioner: it stands before every window as if it were text."""
    expect_trainer()
    from llmzip_training.conditioner_jobs import write_string

    typer.echo(f"{out}: {write_string(text, model, out)} bytes in an archive that holds it")


def codebook(
    out: Out,
    model: Model = None,
    data: Data = None,
    train: Train = None,
    held_out: HeldOut = None,
    n_bytes: Bytes = 8_000_000,
    variants: Variants = 0,
    entries: Annotated[int, typer.Option("--entries", metavar="K", min=1, help="Beside none.")] = 15,
    prefix: Prefix = 0,
    shifts: Shifts = True,
    steps: Steps = None,
    seconds: Seconds = 0.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pieces in a step.")] = 16,
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens in a piece.")] = 512,
    assign_tokens: Annotated[
        int, typer.Option("--assign-tokens", min=1, help="Of a piece, its first, by which it is assigned.")
    ] = 128,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Pieces in a round.")] = 128,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How often a round goes through its pool.")] = 4,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate, in deviations of the embeddings.")] = 0.2,
    chooser_pieces: Annotated[
        int, typer.Option("--chooser-pieces", min=2, help="Pieces that the chooser is fitted to.")
    ] = 384,
    measure_every: MeasureEvery = 100,
    windows: Annotated[int, typer.Option("--windows", min=0, help="Held-out pieces; 0: all.")] = 48,
    patience: Patience = 3,
    seed: Seed = 0,
    pause_after: PauseAfter = math.inf,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a codebook of conditioners, and what chooses among them; the same command continues a run."""
    job = make_job(out, model, None, data, train, held_out, n_bytes, variants, device, threads, pause_after)
    schedule = make_schedule(steps or 400, seconds, seed, measure_every, windows)
    from llmzip_training.codebook_config import CodebookConfig
    from llmzip_training.conditioner_jobs import train_codebook

    numbers = (context, assign_tokens, batch, pool, epochs, rate, chooser_pieces, patience)
    train_codebook(job, CodebookConfig(schedule, entries, prefix, shifts, *numbers))


def memory(
    out: Out,
    model: Model = None,
    data: Data = None,
    train: Train = None,
    held_out: HeldOut = None,
    n_bytes: Bytes = 8_000_000,
    variants: Variants = 0,
    directions: Annotated[int, typer.Option("--directions", metavar="N", min=1, max=64, help="To combine.")] = 16,
    steps: Steps = None,
    seconds: Seconds = 0.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows in a step.")] = 12,
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens in a window.")] = 512,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Tokens of a chunk, at most.")] = 4096,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate, in deviations of the embeddings.")] = 0.004,
    measure_every: MeasureEvery = 100,
    windows: Annotated[int, typer.Option("--windows", min=0, help="Held-out chunks; 0: all.")] = 96,
    patience: Patience = 0,
    seed: Seed = 0,
    pause_after: PauseAfter = math.inf,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train directions of steering that each chunk combines for itself; the same command continues a run."""
    job = make_job(out, model, None, data, train, held_out, n_bytes, variants, device, threads, pause_after)
    schedule = make_schedule(steps or 1000, seconds, seed, measure_every, windows)
    from llmzip_training.conditioner_jobs import train_memory
    from llmzip_training.memory import MemoryConfig

    train_memory(job, MemoryConfig(schedule, directions, chunk, context, batch, rate, patience))


def merge(
    codebook: Annotated[Path, typer.Argument(metavar="CODEBOOK", help="What `train codebook` wrote.")],
    memory: Annotated[Path, typer.Argument(metavar="MEMORY", help="What `train memory` wrote.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the set of both.")],
    model: Model = None,
) -> None:
    """Join a codebook and a memory: each chunk then takes an entry, a combination of its own, or none."""
    expect_trainer()
    from llmzip.models.artefact import load_artefact
    from llmzip.models.store import find_bundled, find_model
    from llmzip_training.merge import merge_files

    found = find_model(model) if model else find_bundled()
    merged = merge_files(codebook, memory, load_artefact(found.path), out)
    typer.echo(f"{out}: {merged.n_entries} entries")
