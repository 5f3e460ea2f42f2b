"""`llmzip train`: language models of our own, from shards of text to an exported model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from llmzip.errors import BackendError

app = typer.Typer(no_args_is_help=True, help="Train language models, and what belongs to them.")

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of shards, *.txt.zst.")]


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
    _expect_trainer()
    from llmzip_training.train import Job, train_language_model

    train_language_model(Job(run_file, data, out, cache, tokenizer, pause_after, device, threads))


@app.command("tokenizer")
def tokenizer(
    data: Data,
    vocab_size: Annotated[int, typer.Option("--vocab-size", metavar="N", help="Tokens, 257 to 65536.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the tokenizer.json.")],
) -> None:
    """Train a byte-level BPE tokenizer on the training documents of the shards."""
    _expect_trainer()
    from llmzip_training.files import write_whole
    from llmzip_training.tokenizer import sample_texts, train_tokenizer

    trained = train_tokenizer(sample_texts(data, {}), vocab_size)
    write_whole(out, trained.to_str(pretty=True).encode())
    typer.echo(f"{out}: {trained.get_vocab_size()} tokens")


@app.command("curve")
def curve(out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Draw the loss curve of a run, loss.png, from its metrics."""
    _expect_trainer()
    from llmzip_training.metrics import draw_curve

    picture = draw_curve(out)
    if picture is None:
        raise BackendError("a picture needs matplotlib: pip install 'llmzip[train]'")
    typer.echo(str(picture))


def _expect_trainer() -> None:
    """Refuse to train where the trainer or torch is not installed; looking for them costs nothing."""
    from importlib.util import find_spec

    for name in ("llmzip_training", "torch"):
        if find_spec(name) is None:
            raise BackendError(f"training needs {name}, which is not installed: pip install 'llmzip[train]'")
