from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import fuzz, results


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For one target, with files in a folder of the test."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    return ["header", "--seconds", "1", "--corpus", str(tmp_path / "corpus"), "--results", str(tmp_path / "r.csv")]


def _fuzzer(returncode: int, stderr: str) -> Any:
    return lambda command, **_: subprocess.CompletedProcess(command, returncode, "", stderr)


def test_runs_are_recorded(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fuzzer counts them; archives are its first inputs."""
    monkeypatch.setattr(subprocess, "run", _fuzzer(0, "stat::number_of_executed_units: 1234\n"))
    assert fuzz.main(arguments) == 0
    (row,) = csv.DictReader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines())
    assert (row["case"], row["metric"], row["value"]) == ("header, 1 s", "runs", "1234")
    assert (tmp_path / "corpus" / "header" / "empty").exists()


@pytest.mark.parametrize(("returncode", "stderr"), [(77, "stat::number_of_executed_units: 5\n"), (0, "nothing ran")])
def test_a_fault_ends_the_command(
    returncode: int,
    stderr: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what the fuzzer said; nothing is recorded."""
    monkeypatch.setattr(subprocess, "run", _fuzzer(returncode, stderr))
    assert fuzz.main(arguments) == 1
    assert stderr in capsys.readouterr().err
    assert not (tmp_path / "r.csv").exists()


def test_unknown_targets_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of those that there are."""
    assert fuzz.main(["nothing", *arguments[1:]]) == 1
    assert "expected targets of header, sections" in capsys.readouterr().err
