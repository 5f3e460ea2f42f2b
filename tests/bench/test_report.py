from __future__ import annotations

import csv
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from bench import compare, growth, naive, published_runs, report, results
from bench.report_page import PAGE
from bench.report_plan import FULL, QUICK, Planned, Sizes, plan
from bench.report_rows import read_runs
from llmzip.models.store import StoredModel

SECONDS = 600


@pytest.fixture
def texts(tmp_path: Path, sample_text: bytes) -> Path:
    """A folder of a text and of a file that cannot be measured."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "enwik8_part").write_bytes(sample_text[:2000])
    (folder / "nothing").touch()
    return folder


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


def test_whole_report_is_made_by_one_command(
    texts: Path, tmp_path: Path, tiny_model: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts have rows and a place on the page; a file that cannot be read, and the part that says so, are shown."""
    del tiny_model
    monkeypatch.setattr(os, "environ", os.environ | {"OMP_NUM_THREADS": "1"})
    target, out = tmp_path / "results.csv", tmp_path / "out"
    options = ["--quick", "--models", "tiny", "--out", str(out), "--results", str(target)]
    assert report.main([str(texts), *options]) == 1
    (run,) = read_runs(target)
    assert {part.name: part.failure for part in run.parts} == {
        "all files": "exit status 1",
        "published tables": "",
        "yardstick": "",
        "growth": "",
    }
    assert [{row.bench for row in part.rows} for part in run.parts] == [
        {"compare"}, {"published_runs"}, {"naive"}, {"growth"}
    ]  # fmt: skip
    page = (out / PAGE).read_text(encoding="utf-8")
    sizes = {row.case: row.value for row in run.rows if row.metric == "size"}
    assert sizes.keys() == {"enwik8_part[:600]: zlib -9", "enwik8_part[:600]: llmzip, tiny"}
    assert "| all files | (none) | unreadable |" in page
    assert "| all files | the whole command | failed | exit status 1 |" in page
    assert "| Pythia-70m, whole | 734 | 732 | 60,471 | 0.1512 | tokens equal |\n" in page
    assert "| llmzip, tiny, whole | " in page
    assert "| tiny, enwik8_part, 20 tokens a chunk | decode, 1 lanes | " in page
    assert "| size | 300 | " in page
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("speed.png", "growth.png"))
    (out / PAGE).unlink()
    assert report.main(["--redraw", "--out", str(out), "--results", str(target)]) == 0
    assert (out / PAGE).read_text(encoding="utf-8") == page


def test_part_that_fails_is_told_by_its_last_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With its exit status; a model that is not there is such a failure."""
    planned = Planned("a", "bench.naive", ("--text", str(tmp_path / "text"), "--model", "no-such-model"))
    status, part = report.run_part(planned, time.monotonic() + SECONDS, tmp_path / "results.csv")
    assert status == 1
    assert part.failure.startswith("naive: model no-such-model: expected one of")
    assert part.failure in capfd.readouterr().err


def test_part_without_time_does_not_begin(tmp_path: Path) -> None:
    """It has a row that says so."""
    status, part = report.run_part(Planned("a", "bench.naive", ()), time.monotonic() - 1, tmp_path / "results.csv")
    assert (status, part.failure, part.seconds) == (1, "no time was left for it", 0)


def test_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """And the report goes on."""
    module = tmp_path / "endless.py"
    module.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    command = [sys.executable, str(module)]
    start = time.monotonic()
    assert report.run(command, 1.0) == (1, "not ended in the 1 seconds that were left")
    assert time.monotonic() - start < SECONDS / 2


@pytest.mark.parametrize("argument", ["missing", "empty"])
def test_folder_without_files_is_refused(argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything runs."""
    (tmp_path / "empty").mkdir()
    assert report.main([str(tmp_path / argument), "--results", str(tmp_path / "results.csv")]) == 1
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize("sizes", [FULL, QUICK], ids=["full", "quick"])
def test_every_planned_command_is_one(sizes: Sizes, texts: Path) -> None:
    """Its benchmark takes its options, whatever it then does with them."""
    text = texts / "enwik8_part"
    parts = list(plan(texts, text, ["bundled", "other"], ["bundled", "other"], sizes))
    assert len({part.name for part in parts}) == len(parts) >= 6
    modules = {f"bench.{module.__name__.rpartition('.')[2]}": module for module in (compare, growth, naive)}
    modules["bench.published_runs"] = published_runs
    for part in parts:
        chosen = modules[part.module]._parse(part.arguments)
        assert chosen.results == results.RESULTS
    assert [part.name for part in parts if "other" in shlex.join(part.arguments)] == [
        "published tables", "texts, other", "yardstick, other"
    ]  # fmt: skip


def test_rows_of_others_are_not_of_the_run(tmp_path: Path) -> None:
    """What another command appends in the meantime has another command in its row."""
    path = tmp_path / "results.csv"
    columns = dict.fromkeys(results.COLUMNS, "")
    lines = [
        {"bench": "report", "case": "run", "metric": "parts", "value": "1"},
        {"bench": "growth", "case": "a", "metric": "b", "value": "1", "command": "mine"},
        {"bench": "growth", "case": "a", "metric": "b", "value": "2", "command": "another"},
        {"bench": "report", "case": "part: mine", "metric": "time", "value": "3"},
        {"bench": "report", "case": "part: it broke: badly", "metric": "failed", "value": "1"},
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, results.COLUMNS)
        writer.writeheader()
        writer.writerows(columns | line for line in lines)
    (run,) = read_runs(path)
    (part,) = run.parts
    assert (part.name, part.command, part.seconds, part.failure) == ("part", "mine", 3, "it broke: badly")
    assert [row.value for row in part.rows] == [1]
