"""A run that was never measured, for what shows it, and a folder with a file for what measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmzip.bench.corpora import Text, take
from llmzip.bench.measure import RAW
from llmzip.bench.records import Run
from llmzip.bench.rows import Row, Status, Way, totals, with_break_even
from llmzip.bench.spread import Spread

TEXT = b"It is the same text again and again; it is the same text again. " * 30


def way(seconds: float, n_raw: int) -> Way:
    """Encoding or decoding, measured once."""
    return Way(Spread.of([seconds]), Spread.of([n_raw / 1000 / seconds]), 0.25, 20_000_000)


def row(file: str, name: str, n_packed: int, encode: float, decode: float, *, model_bytes: int = 0) -> Row:
    """What came of 1,000 bytes."""
    return Row(
        *(file, name.partition(" ")[0], name, model_bytes > 0, Status.OK),
        n_raw=1000,
        n_packed=n_packed,
        model_bytes=model_bytes,
        encode=way(encode, 1000),
        decode=way(decode, 1000),
        settings={"device": "cpu", "threads": 2, "window": 64, "overlap": 16, "chunk_size": 512} if model_bytes else {},
    )


def text(name: str) -> Text:
    """A file that nobody knows."""
    return Text(name, f"there/{name}", 1000, "ab" * 32, True, None, "2026-01-02")


@pytest.fixture
def run() -> Run:
    """Two files, the second of which one contender failed on, and a file that could not be read."""
    first = with_break_even(
        [
            row("one.txt", "fast -1", 500, 0.001, 0.001),
            row("one.txt", "small -9", 400, 0.5, 0.002),
            row("one.txt", "small-model llmzip", 300, 0.1, 0.2, model_bytes=5000),
        ]
    )
    wrong = Row("<b>two", "fast", "fast -1", False, Status.WRONG, "expected byte 1, found 2", 30, n_raw=1000)
    second = [wrong, row("<b>two", "small -9", 250, 0.5, 0.01)]
    lost = Row("lost", "", "(none)", False, Status.UNREADABLE, "lost: No such file or directory", 61)
    rows = [*first, *second, lost]
    texts = [text("one.txt"), text("<b>two")]
    command = "llmzip bench one.txt '<b>two' lost"
    return Run("2026-01-03T04:05:06+00:00", "a machine", "llmzip 1", command, 1, texts, rows, totals(rows))


@pytest.fixture
def source(tmp_path: Path) -> tuple[Text, Path]:
    """A file that compresses well, and the folder that it is measured in."""
    (tmp_path / "text").write_bytes(TEXT)
    folder = tmp_path / "work"
    folder.mkdir()
    return take("text", str(tmp_path / "text"), None, folder / RAW), folder
