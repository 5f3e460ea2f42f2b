from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import results, streams
from bench.streams import Run, pieces
from llmzip.errors import ConfigError


@pytest.mark.parametrize("text", [b"", random.Random(1).randbytes(250_000)])
def test_data_are_the_same_each_time(text: bytes) -> None:
    """Of the size that was asked for; a text is among them from its beginning."""
    data = b"".join(pieces(1_000_000, text))
    assert len(data) == 1_000_000
    assert data == b"".join(pieces(1_000_000, text))
    assert text[: 1 << 16] in data


def test_a_text_must_suffice() -> None:
    """Repeated, it would be no text for a model."""
    with pytest.raises(ConfigError, match="expected at least 250000 bytes"):
        next(pieces(1_000_000, b"too short"))


@pytest.mark.slow
def test_every_stream_leaves_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, time and memory, both ways; noise cannot be made smaller, zeros can."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    assert streams.main(["--megabytes", "1,2", "--results", str(tmp_path / "results.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    values = {(row["case"], row["metric"]): float(row["value"]) for row in rows}
    assert len(values) == 10
    assert 0 < values["1 MB", "size"] < 1_000_000
    assert all(values[f"2 MB: {way}", "memory"] > 10 for way in ("compress", "decompress"))


@pytest.mark.slow
def test_other_bytes_leave_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes back is compared by its digest."""
    run = streams._run

    def _run(command: str, data: Iterator[bytes], take: Callable[[bytes], object]) -> Run:
        return run(command, data, take if command == "compress" else lambda _piece: None)

    monkeypatch.setattr(streams, "_run", _run)
    assert streams.main(["--megabytes", "1", "--results", str(tmp_path / "results.csv")]) == 1
    assert "expected the bytes of the stream back" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()
