"""What compress and decompress have in common: one input, one output, progress, and what becomes of the input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import typer

from llmzip.cli.files import STANDARD, is_special, open_journal, open_source, open_target
from llmzip.cli.progress import Report, shown
from llmzip.errors import ConfigError, FormatError

# From a source to a target, with reports; the last is a journal, if there is one.
Work = Callable[[BinaryIO, BinaryIO, Report, BinaryIO | None], None]


@dataclass(frozen=True)
class Transfer:
    """From where to where, and how much is said about it.

    Attributes:
        source: a path, or `-` for standard input.
        target: a path, or `-` for standard output.
        force: overwrite, and write binary data to a terminal.
        remove: remove the source after success.
        quiet: show no progress.
        verbose: say sizes and speed at the end.
        archive_in: the source is an archive; if it is not, the work has a journal.
        resume: go on with the journal that an earlier run has left.
    """

    source: str
    target: str
    force: bool
    remove: bool
    quiet: bool
    verbose: bool
    archive_in: bool
    resume: bool = False

    def run(self, work: Work) -> None:
        """Do the work from source to target; the source is removed last, if at all."""
        if self.remove and is_special(self.target):
            raise ConfigError(f"{self.target}: expected a file to keep the content in before {self.source} is removed")
        with (
            open_source(self.source, binary=self.archive_in) as source,
            shown(self.source, lambda: self._raw_length(source), quiet=self.quiet) as progress,
        ):
            # Around the target, so that it is there until that is whole.
            journaled = nullcontext() if self.archive_in else open_journal(self.target, resume=self.resume)
            with (
                journaled as journal,
                open_target(self.target, self.source, force=self.force, binary=not self.archive_in) as target,
            ):
                work(source, target, progress.report, journal)
            if self.verbose:
                typer.echo(f"{self.source}: {progress.summary()}", file=sys.stderr)
        if self.remove and STANDARD not in (self.source, self.target):
            Path(self.source).unlink()

    def _raw_length(self, source: BinaryIO) -> int | None:
        """Find the raw bytes to come without decoding, for the bar; `None` for a pipe or a damaged archive."""
        if not source.seekable():
            return None
        if not self.archive_in:
            here = source.tell()
            length = source.seek(0, 2) - here
            source.seek(here)
            return length
        from llmzip.format import FrameIndex

        try:
            return FrameIndex(source).raw_length
        except FormatError:
            # Whoever does the work tells what is wrong.
            return None
        finally:
            source.seek(0)
