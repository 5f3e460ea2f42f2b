"""`llmzip help`: what a command's own help is too short for, by topic."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any

import typer

from llmzip import errors
from llmzip.errors import LlmzipError

_EXIT_CODES = "exit-codes"
_FIRST_LINES = {
    0: "success",
    1: "the reader of a pipe went away, or an error nobody foresaw",
    2: "a wrong command line",
}
_LAST_LINES = {130: "interrupted by the keyboard", 143: "asked to end"}


def help_on(
    context: typer.Context,
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="A topic or a command; none: what there is.")
    ] = None,
) -> None:
    """Explain a command, or archives, models, conditioners, speed, resume, damage, safety, environment, exit-codes."""
    program = context.find_root()
    # A group; the class of it is another one with each version of typer.
    commands: dict[str, Any] = program.command.commands  # type: ignore[attr-defined]
    if topic is None:
        typer.echo(f"topics: {', '.join(topics())}\ncommands: {', '.join(commands)}\n\nrun: llmzip help TOPIC")
    elif topic == _EXIT_CODES:
        typer.echo("EXIT CODES\n\n" + "\n".join(_exit_codes()))
    elif topic in topics():
        typer.echo(_texts().joinpath(f"{topic}.txt").read_text(encoding="utf-8").rstrip("\n"))
    elif topic in commands:
        typer.echo(commands[topic].make_context(topic, [], parent=program, resilient_parsing=True).get_help())
    else:
        raise typer.BadParameter(f"expected one of {', '.join([*topics(), *commands])}, found {topic!r}")


def topics() -> list[str]:
    """The names of all topics."""
    names = [path.name.removesuffix(".txt") for path in _texts().iterdir() if path.name.endswith(".txt")]
    return sorted([*names, _EXIT_CODES])


def _texts() -> resources.abc.Traversable:
    return resources.files("llmzip.cli").joinpath("topics")


def _exit_codes() -> Iterator[str]:
    """A line for each exit code, those of errors by their classes."""
    codes = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, LlmzipError) and kind is not LlmzipError:
            codes[kind.exit_code] = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
    for code, meaning in sorted((_FIRST_LINES | codes | _LAST_LINES).items()):
        yield f"  {code:>3}  {meaning[:1].lower() + meaning[1:]}"
