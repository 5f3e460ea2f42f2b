from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import published_runs, results
from llmzip.lanes import Lanes
from llmzip.models.store import StoredModel


@pytest.fixture
def arguments(
    tmp_path: Path, tiny_model: StoredModel, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A text of 1,000 bytes in four chunks."""
    del tiny_model
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    (tmp_path / "text").write_bytes(sample_text)
    sizes = ["--bytes", "1000", "--chunk", "300", "--threads", "1", "--results", str(tmp_path / "r.csv")]
    return ["--text", str(tmp_path / "text"), *sizes]


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "r.csv").read_text(encoding="utf-8").splitlines()))


def test_both_cuts_are_measured_beside_the_published(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chunks cost more bits than the whole; what differs is said below."""
    assert published_runs.main([*arguments, "--models", "tiny"]) == 0
    rows = {(row["case"], row["metric"]): float(row["value"]) for row in _rows(tmp_path)}
    chunks, whole = (rows[f"text, 1000 bytes: llmzip, tiny, {cut}", "payload"] for cut in ("chunks", "whole"))
    assert 0 < whole < chunks
    assert rows["text, 1000 bytes: llmzip, tiny, whole", "ratio"] == pytest.approx(whole / 8000, rel=1e-5)
    output = capsys.readouterr().out
    assert "| Pythia-70m, chunks | 138 | 152 | 66,303 | 0.1658 | tokens equal |" in output
    assert f"| llmzip, tiny, chunks | 0.0 | 0.0 | {chunks:,.0f} | " in output or "| llmzip, tiny, chunks |" in output
    assert "| what differs | published | here |" in output


def test_model_that_fails_is_a_row(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one after it is measured all the same."""
    assert published_runs.main([*arguments, "--models", "no-such-model,tiny"]) == 1
    (failed,) = (row for row in _rows(tmp_path) if row["metric"] == "failed")
    assert failed["case"].startswith("text, 1000 bytes: no-such-model: model no-such-model: expected one of")
    assert (failed["value"], failed["unit"]) == ("21", "exit status")
    assert sum(row["metric"] == "payload" for row in _rows(tmp_path)) == 2
    assert "| no-such-model | | | | | no: model no-such-model: expected one of" in capsys.readouterr().out


def test_other_bytes_leave_no_figures(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not decode is a failure."""
    end = Lanes.end
    monkeypatch.setattr(Lanes, "end", lambda lanes, lane: end(lanes, lane)[::-1])
    assert published_runs.main([*arguments, "--models", "tiny"]) == 1
    assert [row["metric"] for row in _rows(tmp_path)] == ["failed"]
