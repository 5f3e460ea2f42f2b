"""A run of `llmzip bench` from its files to its rows; it leaves to the command line what is shown and written."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmzip import __version__
from llmzip.bench import machine
from llmzip.bench.contenders import Kind, Reference
from llmzip.bench.corpora import Text, take
from llmzip.bench.measure import RAW, measure
from llmzip.bench.records import Run
from llmzip.bench.rows import Row, Status, totals
from llmzip.errors import FileError, LlmzipError


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        paths: files.
        fresh: those of them that no model has seen, as the user says.
        references: the contenders.
        limit: bytes of each file, None for all.
        repeats: of every measurement.
    """

    paths: Sequence[str]
    fresh: frozenset[str]
    references: Sequence[Reference]
    limit: int | None = None
    repeats: int = 1

    @property
    def n_steps(self) -> int:
        """Runs of contenders, both ways as one."""
        return len(self.paths) * len(self.references) * self.repeats


def rows_of(plan: Plan, step: Callable[[str], None]) -> Iterator[tuple[Text | None, list[Row]]]:
    """The rows of each file in turn; a file that cannot be read has one row that says so, and no text.

    Args:
        plan: what to measure.
        step: told file and contender before each run.
    """
    for name, path in zip(_names(plan.paths), plan.paths, strict=True):
        with tempfile.TemporaryDirectory(prefix="llmzip-bench-") as folder:
            raw = Path(folder) / RAW
            try:
                text = take(name, path, plan.limit, raw, fresh=path in plan.fresh)
            except OSError as error:
                yield None, [_unreadable(name, FileError.from_os_error(error))]
            except LlmzipError as error:
                yield None, [_unreadable(name, error)]
            else:
                yield text, measure(text, plan.references, Path(folder), plan.repeats, _named(name, step))


def run_of(plan: Plan, found: Sequence[tuple[Text | None, list[Row]]]) -> Run:
    """The whole run, of what `rows_of` gave."""
    rows = [row for _, of_file in found for row in of_file]
    texts = [text for text, _ in found if text is not None]
    return Run(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.device(),
        versions=f"llmzip {__version__}; {machine.versions()}",
        command=shlex.join(["llmzip", *sys.argv[1:]]),
        repeats=plan.repeats,
        texts=texts,
        rows=rows,
        totals=totals(rows) if len(texts) > 1 else [],
    )


def models(names: Sequence[str], threads: int, device: str) -> list[Reference]:
    """References to llmzip with these models."""
    return [Reference(Kind.MODEL, name, threads, device, asked=True) for name in names]


def _named(name: str, step: Callable[[str], None]) -> Callable[[str], None]:
    return lambda contender: step(f"{name}: {contender}")


def _unreadable(name: str, error: LlmzipError) -> Row:
    reason = " ".join(str(error).split())
    return Row(name, "", "(none)", has_model=False, status=Status.UNREADABLE, reason=reason, exit_code=error.exit_code)


def _names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, and the whole paths where those are the same."""
    counts = Counter(Path(path).name for path in paths)
    return [Path(path).name if counts[Path(path).name] == 1 else path for path in paths]
