from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bench import program, results
from bench.program import Program
from llmzip import decompress
from llmzip.errors import ExactnessError

TEXT = b"It is the same text again and again, and a different one once.\n" * 3


@pytest.mark.slow
def test_first_and_later_runs_leave_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Seconds and speeds of both ways, and the size; the compiled code is in a folder of the benchmark's own."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    (tmp_path / "text").write_bytes(TEXT)
    sizes = ["--text", str(tmp_path / "text"), "--bytes", "100", "--repeats", "2"]
    assert program.main([*sizes, "--results", str(tmp_path / "results.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["case"].split(", ", 2)[2] for row in rows} == {
        f"100 bytes: {name}" for name in ("archive", "first run", "later runs")
    }
    seconds = {(row["case"].rpartition(": ")[2], row["metric"]): row for row in rows if row["unit"] == "s"}
    assert seconds["later runs", "compress"]["repeats"] == "2"
    assert float(seconds["first run", "compress"]["value"]) > 2 * float(seconds["later runs", "compress"]["value"])
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["| first", "| later"]


@pytest.mark.slow
def test_archive_is_the_program_s(tmp_path: Path) -> None:
    """What is timed can be decoded here; other bytes, another archive, and a program that fails are errors."""
    timed = Program(TEXT, "bundled", tmp_path)
    timed.compress()
    timed.decompress()
    assert decompress(timed.archive) == TEXT
    timed.archive = b"other"
    with pytest.raises(ExactnessError, match="expected the same 5 bytes"):
        timed.compress()
    (tmp_path / "archive").write_bytes(b"no archive")
    with pytest.raises(ExactnessError, match="decompress: expected exit status 0, found"):
        timed.decompress()
