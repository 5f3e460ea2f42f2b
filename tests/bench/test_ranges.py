from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import ranges, results
from llmzip.models.store import StoredModel


def _arguments(text: bytes, folder: Path, length: int) -> list[str]:
    (folder / "text").write_bytes(text)
    sizes = ["--text", str(folder / "text"), "--length", str(length), "--model", "tiny", "--repeats", "1"]
    return [*sizes, "--results", str(folder / "results.csv")]


@pytest.mark.usefixtures("tiny_model")
def test_range_and_whole_leave_their_rows(sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part decodes fewer chunks than the whole, the whole decodes all bytes."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    for name in ("compress_zstd", "compress_general"):
        monkeypatch.setattr(f"llmzip.methods.{name}", lambda raw: raw)
    monkeypatch.setattr("llmzip.encoding.default_chunk_size", lambda *_sizes: 500)
    assert ranges.main(_arguments(sample_text[:4000], tmp_path, 50)) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    values = {(row["case"].rpartition(": ")[2], row["metric"]): float(row["value"]) for row in rows}
    assert values["4000 bytes", "decoded"] == 4000
    assert 1 <= values["50 bytes", "chunks"] <= 2 < 8 <= values["4000 bytes", "chunks"]


def test_wrong_bytes_leave_no_row(
    tiny_model: StoredModel,
    sample_text: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor does a text that is shorter than the range."""
    assert tiny_model.name == "tiny"
    monkeypatch.setattr(ranges, "read_range", lambda *_arguments: [b"other"])
    assert ranges.main(_arguments(sample_text[:400], tmp_path, 50)) == 1
    assert "expected bytes 175 to 224 of the text" in capsys.readouterr().err
    assert ranges.main(_arguments(b"short", tmp_path, 50)) == 1
    assert "expected at least 50 bytes, found 5" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()
