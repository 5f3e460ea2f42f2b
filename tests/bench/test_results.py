from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import results
from bench.results import COLUMNS, Figure
from llmzip.errors import ExactnessError


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234+")


def test_header_is_written_once(tmp_path: Path) -> None:
    """Two calls leave one header and the rows of both, in order."""
    path = tmp_path / "results.csv"
    results.append("ratio", [Figure("a", "size", 12, "bytes")], path)
    results.append("engine", [Figure("b", "ratio", 1.23456789, "")], path)
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row[1:7] for row in rows[1:]] == [
        ["abc1234+", "ratio", "a", "size", "12", "bytes"],
        ["abc1234+", "engine", "b", "ratio", "1.23457", ""],
    ]


def test_rows_already_there_stay_byte_for_byte(tmp_path: Path) -> None:
    """What was in the file is a prefix of what is in it afterwards."""
    path = tmp_path / "results.csv"
    results.append("ratio", [Figure("a", "size", 12, "bytes")], path)
    before = path.read_bytes()
    results.append("ratio", [Figure("a", "size", 13, "bytes")], path)
    assert path.read_bytes().startswith(before)


def test_timed_figure_fills_the_spread(tmp_path: Path) -> None:
    """The number of repetitions and three quantiles stand in the row, the median as its value."""
    path = tmp_path / "results.csv"
    results.append("engine", [Figure.timed("a", "compress", [2.0, 1.0, 4.0])], path)
    row = next(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row[name] for name in ("value", "unit", "repeats", "p20", "p50", "p80")] == [
        "2",
        "s",
        "3",
        "1.4",
        "2",
        "3.2",
    ]


def test_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    """Rows never go under a header that they do not fit."""
    path = tmp_path / "results.csv"
    path.write_text("date,value\n", encoding="utf-8")
    with pytest.raises(ValueError, match="found date, value"):
        results.append("ratio", [Figure("a", "size", 12, "bytes")], path)
    assert path.read_text(encoding="utf-8") == "date,value\n"


def test_device_names_cores_and_instructions() -> None:
    """A row tells on how many cores it was measured, and with which inner loop."""
    assert results.device().split(", ")[-2] == f"{results.n_cores()} cores"
    assert results.device().split(", ")[-1] in ("avx512", "avx2", "generic")


def test_figures_of_a_benchmark_are_recorded(tmp_path: Path) -> None:
    """All of them under its name, with the exit status of success."""
    path = tmp_path / "results.csv"
    assert results.record("loss", lambda: [Figure("a", "size", 12, "bytes")], path) == 0
    assert [row["bench"] for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())] == ["loss"]


def test_benchmark_that_fails_half_way_records_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line tells why, and the exit status is 1."""

    def _measure() -> Iterator[Figure]:
        yield Figure("a", "size", 12, "bytes")
        raise ExactnessError("expected 12, found 13")

    path = tmp_path / "results.csv"
    assert results.record("loss", _measure, path) == 1
    assert capsys.readouterr().err == "loss: expected 12, found 13\n"
    assert not path.exists()


@pytest.mark.parametrize("where", [["--results", "some.csv"], ["--results=some.csv"], []])
def test_where_rows_go_is_no_part_of_a_command(where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same measurement has the same command wherever it is written."""
    monkeypatch.setattr("sys.argv", ["bench", "a text", *where, "--repeats", "3"])
    assert results.command().endswith(" 'a text' --repeats 3")
