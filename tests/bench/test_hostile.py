from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from bench import hostile, results
from bench.hostile import mutate, outcomes, seeds
from llmzip.archive import decompress
from llmzip.errors import ExactnessError


def test_every_mutation_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six ways of reading each; the same seed gives the same counts."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    arguments = ["--mutations", "40", "--results", str(tmp_path / "results.csv")]
    assert hostile.main(arguments) == hostile.main(arguments) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    counts = [(row["case"], row["metric"], row["value"]) for row in rows if row["unit"] == ""]
    assert counts[: len(counts) // 2] == counts[len(counts) // 2 :]
    assert sum(int(value) for _, _, value in counts) == 2 * 6 * 40


def test_unchanged_archives_are_content() -> None:
    """Of all seeds; only one of them has members."""
    found = [dict(outcomes(archive)) for archive in seeds()]
    for way in ("decompress", "list", "range", "test"):
        assert all(isinstance(ways[way], bytes) for ways in found)
    assert all(ways["salvage"] == ways["decompress"] for ways in found)
    assert [isinstance(ways["extract"], bytes) for ways in found].count(True) == 1


@pytest.mark.parametrize(
    ("way", "found", "message"),
    [
        ("read_range", lambda *_arguments: iter([b"other"]), "range: expected"),
        ("verify_stream", lambda *_arguments: iter([1]), "test: expected"),
        ("salvage_stream", lambda *_arguments: [], "salvage: expected"),
    ],
)
def test_ways_that_disagree_are_told(way: str, found: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are held against what decompress gives."""
    archive = seeds()[2]
    monkeypatch.setattr(hostile, way, found)
    with pytest.raises(ExactnessError, match=message):
        list(outcomes(archive))


def test_changes_can_be_made_again() -> None:
    """By their number alone, and each change changes something now and then."""
    originals = seeds()
    made = [mutate(originals[5], originals, random.Random(f"0, {i}")) for i in range(50)]
    assert made == [mutate(originals[5], originals, random.Random(f"0, {i}")) for i in range(50)]
    assert len(set(made)) > 40


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (ValueError("not one of ours"), "expected an error of llmzip, found ValueError"),
        (b"other", "bytes of other content"),
    ],
)
def test_anything_else_ends_the_command(
    outcome: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A bare exception, or bytes that were never put in; nothing is recorded."""

    def _decompress(*_arguments: object) -> bytes:
        if isinstance(outcome, Exception):
            raise outcome
        return bytes(outcome)

    originals = seeds()
    monkeypatch.setattr(hostile, "seeds", lambda: originals)
    calls = iter([decompress] * len(originals))
    monkeypatch.setattr(hostile, "decompress", lambda *arguments: next(calls, _decompress)(*arguments))
    assert hostile.main(["--mutations", "30", "--results", str(tmp_path / "results.csv")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()
