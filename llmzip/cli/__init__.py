"""The command line: one file a command, gzip's habits, and the one place that catches `LlmzipError`.

Exit codes: 0 success, 1 the reader of a pipe went away, 2 a wrong command line, 130 an interruption by the
keyboard, 143 a request to end; all others are those of `llmzip.errors`.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from llmzip import __version__
from llmzip.allocator import return_freed_memory
from llmzip.cli import models, train
from llmzip.cli.bench import bench
from llmzip.cli.cat import cat
from llmzip.cli.compress import compress
from llmzip.cli.decompress import decompress
from llmzip.cli.extract import extract
from llmzip.cli.help import help_on
from llmzip.cli.info import info
from llmzip.cli.list import list_archives
from llmzip.cli.terminal import emphasised
from llmzip.cli.test import verify
from llmzip.errors import FileError, LlmzipError

__all__ = ["app", "main"]

app = typer.Typer(
    name="llmzip",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compress")(compress)
app.command("decompress")(decompress)
app.command("extract")(extract)
app.command("test")(verify)
app.command("list")(list_archives)
app.command("info")(info)
app.command("cat")(cat)
app.command("bench")(bench)
app.command("help")(help_on)
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        from llmzip.format.limits import ARITHMETIC_VERSION, CODER_VERSION, FORMAT_VERSION

        versions = f"format {FORMAT_VERSION}, arithmetic {ARITHMETIC_VERSION}, entropy coder {CODER_VERSION}"
        typer.echo(f"llmzip {__version__} ({versions})")
        raise typer.Exit


@app.callback()
def _llmzip(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions.")
    ] = False,
) -> None:
    """Compress text with a language model, and get the same bytes back."""


def main() -> None:
    """Run a command; any refusal is one line on standard error and the exit code of its class."""
    signal.signal(signal.SIGTERM, _end)
    return_freed_memory()
    try:
        app(prog_name="llmzip")
    except LlmzipError as error:
        _refuse(error)
    except OSError as error:
        _refuse(FileError.from_os_error(error))


def _refuse(error: LlmzipError) -> NoReturn:
    line = " ".join(str(error).split())
    typer.echo(f"{emphasised('llmzip:')} {line}", err=True)
    sys.exit(error.exit_code)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End in order, so that no half-written file stays."""
    sys.exit(128 + number)
