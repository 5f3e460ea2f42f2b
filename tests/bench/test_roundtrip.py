from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import roundtrip
from llmzip.models.store import StoredModel


def test_made_inputs_and_files_come_back_and_are_recorded(
    tiny_model: StoredModel, sample_text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each of the five made inputs and each file, in the table and in the results."""
    text, rows = tmp_path / "text.py", tmp_path / "results.csv"
    text.write_bytes(sample_text[:2000])
    arguments = [str(text), "--model", str(tiny_model.path), "--limit", "400", "--results", str(rows)]
    assert roundtrip.main(arguments) == 0
    with rows.open(newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    assert len(cases) == 6
    assert cases[-1].endswith("text.py, 400 bytes")
    assert capsys.readouterr().out.count("\n|") == 7


def test_other_bytes_end_it(monkeypatch: pytest.MonkeyPatch, tiny_model: StoredModel, tmp_path: Path) -> None:
    """A decoder that changes a byte is caught before a row is printed."""
    monkeypatch.setattr(roundtrip, "decompress", lambda _archive, _options: b"b")
    arguments = ["--model", str(tiny_model.path), "--limit", "1", "--results", str(tmp_path / "results.csv")]
    assert roundtrip.main(arguments) == 1
    assert not (tmp_path / "results.csv").exists()
