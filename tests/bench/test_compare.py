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
    """Sizes, ratios, speeds and memory of every contender; of a wrong decoder one row that says why, and no figure."""
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
    wrong = [row for row in rows if "bad" in row["case"]]
    assert [(row["case"], row["metric"], row["value"], row["unit"]) for row in wrong] == [
        ("input[:3000]: bad: decode: expected 3000 bytes, found 9", "wrong", "30", "exit status")
    ]
    assert {row["repeats"] for row in rows if row["unit"] == "KB/s"} == {"2"}
    assert {row["value"] for row in rows if row["metric"] == "input"} == {"3000"}


def test_folder_stands_for_its_files_and_nothing_is_dropped(
    tmp_path: Path, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read and an opponent that is missing are rows, and the page has them, too."""
    folder, target, page = tmp_path / "texts", tmp_path / "results.csv", tmp_path / "page.html"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b").write_bytes(sample_text[:500])
    (folder / "a").touch()
    monkeypatch.setenv("PATH", str(folder))
    chosen = ["--models", "", "--against", "zlib", "--against", "zpaq", "--repeats", "1", "--html", str(page)]
    assert compare.main([str(folder), *chosen, "--results", str(target)]) == 1
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    problems = {row["metric"]: (row["case"], row["value"]) for row in rows if row["unit"] == "exit status"}
    assert problems == {
        "unreadable": (f"a: (none): {folder / 'a'}: expected at least one byte, found none", "50"),
        "missing": ("b: zpaq -m5: expected the program zpaq on PATH, found none", "40"),
    }
    assert {row["case"] for row in rows if row["metric"] == "size"} == {"b: zlib -9"}
    shown = page.read_text(encoding="utf-8")
    assert "expected the program zpaq on PATH" in shown
    assert "expected at least one byte, found none" in shown


def test_unknown_names_end_before_any_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model or an opponent that is not there is said at once."""
    for wrong in (["--models", "no-such-model"], ["--against", "gzip"]):
        assert compare.main([str(tmp_path / "missing"), *wrong]) == 1
        output = capsys.readouterr()
        assert (output.out, output.err.startswith("compare: ")) == ("", True)
