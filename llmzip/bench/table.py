"""Rows for the terminal: a table for each file, what was computed how, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmzip.bench.columns import COLUMNS, problem_text, settings_text
from llmzip.bench.corpora import Text
from llmzip.bench.rows import Row

_NARROW = {"memory, encode": "memory", "memory, decode": "to decode"}


def file_lines(text: Text, rows: Sequence[Row]) -> Iterator[str]:
    """The table of one file, with what is known of it above."""
    yield f"{text.name}: {text.n_bytes:,} bytes; {text.origin}"
    yield from table_lines(rows)


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Titles, a line for each row, and the settings of those that have a model."""
    cells = [[_NARROW.get(column.title, column.title) for column in COLUMNS]]
    for row in rows:
        problem = problem_text(row)
        cells.append([row.contender, problem] if problem else [column.text(row) for column in COLUMNS])
    whole = [line for line in cells if len(line) == len(COLUMNS)]
    widths = [max(len(line[i]) for line in whole) for i in range(len(COLUMNS))]
    widths[0] = max(len(line[0]) for line in cells)
    for line in cells:
        if len(line) == len(COLUMNS):
            shown = [line[0].ljust(widths[0]), *(cell.rjust(widths[i + 1]) for i, cell in enumerate(line[1:]))]
            yield "  ".join(shown).rstrip()
        else:
            yield f"{line[0].ljust(widths[0])}  {line[1]}"
    for row in rows:
        if row.has_model and row.settings:
            against = f"; break-even against {row.best_opponent}" if row.best_opponent else ""
            yield f"  {row.contender}: {settings_text(row)}{against}"
