from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import compare, results


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


def test_what_came_back_right_is_recorded(
    tmp_path: Path, tiny_model: object, capsys: pytest.CaptureFixture[str], sample_text: bytes
) -> None:
    """Sizes, ratios, speeds and memory of every contender; a wrong decoder is in the table, and in no row."""
    del tiny_model
    source, target = tmp_path / "input", tmp_path / "results.csv"
    source.write_bytes(sample_text)
    chosen = ["--models", "tiny", "--against", "zlib", "--against", "bad=cat ; head -c 9", "--repeats", "2"]
    assert compare.main([str(source), *chosen, "--limit", "3000", "--results", str(target)]) == 1
    assert "bad           wrong: decode: expected 3000 bytes, found 9" in capsys.readouterr().out
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    cases = {(row["case"].removeprefix("input[:3000]: "), row["metric"]) for row in rows}
    metrics = {"input", "size", "ratio", "encode", "decode"}
    assert {metric for case, metric in cases if case == "zlib -9"} == metrics
    assert {metric for case, metric in cases if case == "llmzip, tiny"} == metrics | {"ratio with the model"}
    assert ("llmzip, tiny: decode", "memory") in cases
    assert not any("bad" in case for case, _ in cases)
    assert {row["repeats"] for row in rows if row["unit"] == "KB/s"} == {"2"}
    assert {row["value"] for row in rows if row["metric"] == "input"} == {"3000"}


def test_unknown_names_end_before_any_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model or an opponent that is not there is said at once."""
    for wrong in (["--models", "no-such-model"], ["--against", "gzip"]):
        assert compare.main([str(tmp_path / "missing"), *wrong]) == 1
        output = capsys.readouterr()
        assert (output.out, output.err.startswith("compare: ")) == ("", True)
