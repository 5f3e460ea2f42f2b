from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

import llmzip
from llmzip import errors
from llmzip.cli import app
from llmzip.cli.help import topics

TEXTS = {path.stem: path.read_text() for path in (Path(llmzip.__file__).parent / "cli" / "topics").glob("*.txt")}
PROGRAM: Any = typer.main.get_command(app)


@pytest.mark.parametrize("topic", topics())
def test_topics_are_told(topic: str, run: Any) -> None:
    """Every one that the list names, in lines that a terminal holds."""
    done = run("help", topic)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].isupper()
    assert max(map(len, done.stdout.decode().splitlines())) <= 125


def test_every_topic_is_named(run: Any) -> None:
    """In the list of topics, and in what is told of the command."""
    listed, told = run("help").stdout.decode(), run("help", "--help").stdout.decode().replace("\n", " ")
    assert all(topic in listed and topic in told for topic in topics())


@pytest.mark.parametrize("topic", TEXTS)
def test_topics_speak_of_what_there_is(topic: str) -> None:
    """Commands, options, variables and further topics all exist."""
    text = TEXTS[topic]
    commands = PROGRAM.commands
    for name in re.findall(r"(?:^  |`)llmzip ([a-z]+)", text, re.MULTILINE):
        assert name in commands
    options = {name for command in commands.values() for option in command.params for name in option.opts}
    options |= {name for option in commands["models"].commands["add"].params for name in option.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= options
    assert set(re.findall(r"llmzip help ([a-z-]+)", text)) <= set(topics())


def test_exit_codes_are_those_of_the_errors(run: Any) -> None:
    """A line for each, and each has its place in the tree."""
    codes = {int(line.split()[0]) for line in run("help", "exit-codes").stdout.splitlines()[2:]}
    tree = dict(re.findall(r"(\w+Error) +(\d+)", errors.__doc__ or ""))
    kinds = {name: kind for name, kind in vars(errors).items() if name.endswith("Error")}
    assert {name: str(kind.exit_code) for name, kind in kinds.items()} == tree
    assert codes == {kind.exit_code for kind in kinds.values()} | {0, 1, 2, 130, 143}


def test_commands_are_told_as_by_themselves(run: Any) -> None:
    """`help X` is `X --help`; what is neither is refused."""
    assert run("help", "cat").stdout == run("cat", "--help").stdout
    done = run("help", "nothing")
    assert done.returncode == 2
    assert b"expected one of archives" in done.stderr


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], coloured: bool, command: list[str], folder: Path
) -> None:
    """NO_COLOR turns them off."""
    terminal, ours = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    try:
        process = subprocess.run(
            [*command, "test", "none"], cwd=folder, env=variables | environment, stderr=ours, timeout=60, check=False
        )
        shown = os.read(terminal, 1000)
    finally:
        os.close(terminal)
        os.close(ours)
    assert process.returncode == 61
    assert (b"\x1b[" in shown) is coloured
    assert b"none: No such file or directory" in shown
