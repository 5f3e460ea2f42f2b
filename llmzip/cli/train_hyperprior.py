"""`llmzip train hyperprior`: how likely steering rows of a model are, learned from many of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from llmzip.cli.training_options import (
    Bytes,
    Data,
    Device,
    HeldOut,
    Model,
    PauseAfter,
    Seed,
    Threads,
    Train,
    make_job,
)

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of this run; continued if it has been paused.")]


def hyperprior(
    out: Out,
    model: Model = None,
    data: Data = None,
    train: Train = None,
    held_out: HeldOut = None,
    n_bytes: Bytes = 2_000_000,
    pieces: Annotated[
        int, typer.Option("--pieces", min=5, help="Steering matrices; of shards, a fifth is held out.")
    ] = 96,
    held_out_pieces: Annotated[int, typer.Option("--held-out-pieces", min=1, help="And those of --held-out.")] = 24,
    steps: Annotated[int, typer.Option("--steps", min=1, help="That each matrix is trained.")] = 10,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Matrices that are trained together.")] = 8,
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens in a piece.")] = 512,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate, in deviations of the embeddings.")] = 0.1,
    rate_weight: Annotated[
        float, typer.Option("--lambda", help="Weight of a matrix's own bits; 1/n: for texts n times as long.")
    ] = 1 / 32,
    latents: Annotated[int, typer.Option("--latents", min=1, max=16, help="Of a row, beside its coordinates.")] = 2,
    fit_steps: Annotated[int, typer.Option("--fit-steps", min=1, help="Of the hyperprior itself.")] = 200,
    seed: Seed = 0,
    pause_after: PauseAfter = math.inf,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train many steering matrices, and how likely such are; the same command continues a run."""
    job = make_job(out, model, None, data, train, held_out, n_bytes, 0, device, threads, pause_after)
    from llmzip_training.hyperprior import FitConfig
    from llmzip_training.hyperprior_jobs import train_hyperprior
    from llmzip_training.population import PopulationConfig

    population = PopulationConfig(pieces, held_out_pieces, context, batch, steps, rate, rate_weight, seed)
    train_hyperprior(job, population, FitConfig(latents, fit_steps, seed=seed))
