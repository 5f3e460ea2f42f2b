"""Opponents that are programs: those known by name, and any command line that the user gives.

A command runs without a shell in a folder of its own, where its input and output have short names that never change:
some programs store them. `{in}` and `{out}` stand for them; without `{in}` it reads standard input, without `{out}` it
writes standard output.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from llmzip.errors import ConfigError, WorkerError

_IN, _OUT, _NEXT = "{in}", "{out}", ";"
_NAME = re.compile(r"([\w.+-]+)=(?=[^=])")


class Command(NamedTuple):
    """A program that compresses and decompresses.

    Attributes:
        name: in the table.
        compress: its words.
        decompress: the same.
    """

    name: str
    compress: tuple[str, ...]
    decompress: tuple[str, ...]

    @property
    def missing(self) -> str | None:
        """The first of its programs that is not there; None where all are."""
        for program in (self.compress[0], self.decompress[0]):
            if shutil.which(program) is None:
                return program
        return None


def parse_command(text: str) -> Command:
    """The command line of an opponent: `[NAME=]COMPRESS ; DECOMPRESS`.

    >>> parse_command("gzip=gzip -9 ; gzip -d")
    Command(name='gzip', compress=('gzip', '-9'), decompress=('gzip', '-d'))

    Raises:
        ConfigError: it has not these two parts.
    """
    named = _NAME.match(text)
    try:
        words = list(_words(text[named.end() :] if named else text))
    except ValueError as error:
        raise ConfigError(f"{text}: expected a command line, found {str(error).lower()}") from error
    parts = [list(part) for is_next, part in groupby(words, _NEXT.__eq__) if not is_next]
    if len(parts) != 2 or words.count(_NEXT) != 1:
        need = f"COMPRESS {_IN} {_OUT} {_NEXT} DECOMPRESS {_IN} {_OUT}"
        raise ConfigError(f"{text}: expected '{need}', found {len(parts)} commands and {words.count(_NEXT)} {_NEXT}")
    name = named[1] if named else shlex.join(word for word in parts[0] if word not in (_IN, _OUT))
    return Command(name, tuple(parts[0]), tuple(parts[1]))


def _words(text: str) -> Iterator[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_NEXT)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return lexer


def run_command(words: Sequence[str], source: Path, target: Path) -> None:
    """Run one way of an opponent, in the folder of both files.

    Raises:
        WorkerError: it could not start, ended with another status than 0, or left no output.
    """
    filled = [word.replace(_IN, source.name).replace(_OUT, target.name) for word in words]
    with contextlib.ExitStack() as files:
        given = None if any(_IN in word for word in words) else files.enter_context(source.open("rb"))
        taken = None if any(_OUT in word for word in words) else files.enter_context(target.open("wb"))
        try:
            done = subprocess.run(
                filled,
                cwd=source.parent,
                stdin=given or subprocess.DEVNULL,
                stdout=taken or subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise WorkerError(f"{filled[0]}: expected a program that starts, found: {error.strerror}") from error
    if done.returncode:
        raise WorkerError(f"{filled[0]}: expected exit status 0, found {done.returncode}{_last_line(done.stderr)}")
    if not target.is_file():
        raise WorkerError(f"{filled[0]}: expected its output in {_OUT}, found none")


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return f": {told[-1]}" if told else ""


def _seven_zip() -> str:
    """Its name is another one with each way of installing it."""
    return next((name for name in ("7zz", "7z", "7za") if shutil.which(name)), "7z")


def known_programs() -> dict[str, Command]:
    """Programs by the names that `--against` takes, all with one thread, and with nothing in them that time changes."""
    seven = _seven_zip()
    return {
        "zpaq": Command(
            "zpaq -m5",
            ("zpaq", "a", _OUT, _IN, "-m5", "-t1", "-noattributes", "-until", "19800101000000"),
            ("zpaq", "x", _IN, "raw", "-to", _OUT, "-t1"),
        ),
        "7z": Command(
            "7z -mx=9",
            (seven, "a", "-t7z", "-mx=9", "-mmt=1", "-mtm-", "-bd", "-y", "-si", _OUT),
            (seven, "e", "-so", _IN),
        ),
        "bzip3": Command("bzip3 -b 16", ("bzip3", "-e", "-b", "16", "-c"), ("bzip3", "-d", "-c")),
        "lrzip": Command(
            "lrzip -L 9",
            ("lrzip", "-q", "-L", "9", "-p", "1", "-o", _OUT, _IN),
            ("lrzip", "-q", "-d", "-p", "1", "-o", _OUT, _IN),
        ),
        "cmix": Command("cmix", ("cmix", "-c", _IN, _OUT), ("cmix", "-d", _IN, _OUT)),
    }
