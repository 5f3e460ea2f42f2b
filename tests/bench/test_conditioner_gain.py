from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import conditioner_gain, results
from llmzip.models.artefact import load_artefact
from llmzip.models.store import StoredModel
from llmzip.options import CompressOptions
from llmzip_training.conditioner_files import write_conditioner
from llmzip_training.steering import Trained


@pytest.fixture
def arguments(
    tiny_model: StoredModel, sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Two texts, and a conditioner that does no good."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    artefact = load_artefact(tiny_model.path)
    shifts = np.full((artefact.spec.n_layers + 1, artefact.spec.width), 5, np.float32)
    none = np.zeros((0, artefact.spec.width), np.float32)
    trained = Trained(none, shifts, np.ones(len(shifts), np.float32), {})
    write_conditioner(trained, artefact, tmp_path / "bad.cond")
    (tmp_path / "a.py").write_bytes(sample_text[:3000])
    (tmp_path / "b.py").write_bytes(sample_text[3000:5000])
    files = [f"code={tmp_path / 'a.py'}", f"code={tmp_path / 'b.py'}"]
    return [*files, "-D", str(tmp_path / "bad.cond"), "--model", "tiny", "--results", str(tmp_path / "r.csv")]


def test_both_archives_are_made_and_compared(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A conditioner that does no good costs its name and the choices, which the summary tells."""
    assert conditioner_gain.main(arguments) == 0
    rows = {
        (row["case"], row["metric"]): float(row["value"])
        for row in csv.DictReader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines())
    }
    for name in ("code/a.py", "code/b.py"):
        assert 0 < rows[name, "auto"] - rows[name, "none"] <= 16 + 4
    assert rows["code: 2 texts", "mean gain"] < 0
    assert rows["code: 2 texts", "worst beyond a byte a chunk"] <= 16 + 4
    assert "| code | mean of 2 | 5,000 | 2 |" in capsys.readouterr().out


def test_beginnings_are_texts_of_their_own(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Shorter texts stay as they are."""
    assert conditioner_gain.main([*arguments, "--first", "2500"]) == 0
    assert "| code | mean of 2 | 4,500 | 2 |" in capsys.readouterr().out


def test_a_missing_file_of_conditioners_ends_the_command(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line; nothing is recorded."""
    arguments[3] = "missing.cond"
    assert conditioner_gain.main(arguments) == 1
    assert "conditioners missing.cond: expected a file" in capsys.readouterr().err
    assert not (tmp_path / "r.csv").exists()


def test_a_steering_vector_is_trained_on_each_text(arguments: list[str], tmp_path: Path) -> None:
    """And taken where it pays, which is not on so short a text."""
    files = arguments[:1] + arguments[4:]
    assert conditioner_gain.main([*files, "--tune", "0.1", "--threads", "1"]) == 0
    rows = {
        row["metric"]: float(row["value"])
        for row in csv.DictReader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines())
    }
    assert rows["auto"] == rows["none"] > 0


def test_options_of_an_archive_change_nothing_else() -> None:
    """Tuning names the file and embeds it."""
    options = CompressOptions(model="tiny", threads=2)
    assert options.embedding("a.cond") == replace(options, conditioners="a.cond", embed=True)
