"""`llmzip train`: language models of our own, from shards of text to an exported model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from llmzip.cli.train_conditioners import codebook, memory, merge, steering, string
from llmzip.cli.train_hyperprior import hyperprior
from llmzip.cli.training_options import expect_trainer
from llmzip.errors import BackendError, ConfigError

app = typer.Typer(no_args_is_help=True, help="Train language models, and what belongs to them.")
app.command("steering")(steering)
app.command("string")(string)
app.command("codebook")(codebook)
app.command("memory")(memory)
app.command("merge")(merge)
app.command("hyperprior")(hyperprior)

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of shards, *.txt.zst.")]
Results = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")]


@app.command("lm")
def language_model(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml", help="Run file; see docs/training.md.")],
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of this run; continued if it holds checkpoints.")
    ],
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Folder of token files, which runs may share.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="Use this tokenizer.json; default: train one.")
    ] = None,
    pause_after: Annotated[
        float, typer.Option("--pause-after", metavar="S", min=0, help="Seconds until the run pauses.")
    ] = math.inf,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, ...; default: a GPU where there is one.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the CPU.")] = None,
) -> None:
    """Train a run file to an exported model; the same command continues a run that was paused or killed."""
    expect_trainer()
    from llmzip_training.train import Job, train_language_model

    train_language_model(Job(run_file, data, out, cache, tokenizer, pause_after, device, threads))


@app.command("tokenizer")
def tokenizer(
    data: Data,
    vocab_size: Annotated[int, typer.Option("--vocab-size", metavar="N", help="Tokens, 257 to 65536.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the tokenizer.json.")],
) -> None:
    """Train a byte-level BPE tokenizer on the training documents of the shards."""
    expect_trainer()
    from llmzip_training.files import write_whole
    from llmzip_training.tokenizer import sample_texts, train_tokenizer

    trained = train_tokenizer(sample_texts(data, {}), vocab_size)
    write_whole(out, trained.to_str(pretty=True).encode())
    typer.echo(f"{out}: {trained.get_vocab_size()} tokens")


@app.command("curve")
def curve(out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Draw the loss curve of a run, loss.png, from its metrics."""
    expect_trainer()
    from llmzip_training.metrics import draw_curve

    picture = draw_curve(out)
    if picture is None:
        raise BackendError("a picture needs matplotlib: pip install 'llmzip[train]'")
    typer.echo(str(picture))


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a run, exported model, or checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the exported model to.")],
    budgets: Annotated[
        str, typer.Option("--budgets", metavar="A/B/...", help="Tokens that a query sees, by layer; 0: no limit.")
    ] = "",
    cutoff: Annotated[
        float | None, typer.Option("--cutoff", metavar="X", help="Nats from which on a token is forgotten for good.")
    ] = None,
) -> None:
    """Write a trained model as a Hugging Face folder, with the budgets and the cutoff of its selective attention."""
    expect_trainer()
    from llmzip_training.export import CUTOFF, export_folder

    export_folder(folder, out, _budgets(budgets), CUTOFF if cutoff is None else cutoff)
    typer.echo(str(out))


def _budgets(text: str) -> tuple[int, ...]:
    """Budgets as the command line has them, between strokes; none for an empty text."""
    parts = text.split("/") if text else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--budgets: expected whole numbers between strokes, as in 64/128, found {text!r}")
    return tuple(map(int, parts))


@app.command("budget-curve")
def budget_curve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a run, exported model, or checkpoint.")],
    out: Results,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Measure on the held-out text of these shards.")
    ] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option("--held-out", metavar="FILE", help="Measure on this text; can be repeated.")
    ] = None,
    control: Annotated[
        Path | None, typer.Option("--control", metavar="MODEL", help="A plain model, to be pruned by recency.")
    ] = None,
    context: Annotated[int, typer.Option("--context", min=0, help="Tokens in a window; 0: those of the model.")] = 0,
    windows: Annotated[int, typer.Option("--windows", min=0, help="Windows to measure on; 0: all.")] = 64,
    ratios: Annotated[int, typer.Option("--ratios", min=1, help="Points of the curve.")] = 20,
    allowed_rise: Annotated[
        float | None, typer.Option("--allowed-rise", help="Nats a token: also allocate budgets to layers.")
    ] = None,
    allocation_start: Annotated[
        int, typer.Option("--allocation-start", min=0, help="Budget to begin with; 0: the window.")
    ] = 0,
    allocation_step: Annotated[int, typer.Option("--allocation-step", min=1, help="Tokens.")] = 8,
) -> None:
    """Measure the loss of a model against the budget of its pruned attention."""
    expect_trainer()
    from llmzip_training.budget_curve import CurveJob, run_curve

    texts = tuple(held_out or ())
    numbers = (context, windows, ratios, allowed_rise, allocation_start, allocation_step)
    run_curve(CurveJob(model, out, data, texts, control, *numbers))


@app.command("compare")
def compare(
    data: Data,
    out: Results,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each kind.")] = 3,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a run.")] = 300,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows in a step.")] = 8,
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens in a window.")] = 256,
    n_bytes: Annotated[int, typer.Option("--bytes", min=1, help="Of text to train on.")] = 8_000_000,
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Tokens, 257 to 65536.")] = 1024,
    width: Annotated[int, typer.Option("--width", help="Of the models.")] = 128,
    layers: Annotated[int, typer.Option("--layers", help="Of the models.")] = 4,
    heads: Annotated[int, typer.Option("--heads", help="Of a layer.")] = 4,
    memory_weight: Annotated[
        float, typer.Option("--memory-weight", min=0, help="Of the memory penalty of selective models.")
    ] = 0.0,
    memory_mean: Annotated[
        bool, typer.Option("--memory-mean", help="Penalise the mean over the queries, not the greatest.")
    ] = False,
) -> None:
    """Compare selective with plain attention: small models of equal size, trained alike."""
    expect_trainer()
    from llmzip_training.compare import CompareJob
    from llmzip_training.compare import compare as compare_models

    shape = (vocab_size, width, layers, heads)
    job = CompareJob(data, out, seeds, steps, batch, context, n_bytes, *shape, memory_weight)
    compare_models(replace(job, memory_reduce="mean") if memory_mean else job)
