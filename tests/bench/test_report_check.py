from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench import report_check, results
from bench.report_rows import Part, part_figures, start_figure
from bench.results import Figure
from bench.timing import Spread

COMMAND = "python -m bench.compare"
Append = Callable[..., Path]


@pytest.fixture
def append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Append:
    """Appends a run of one part to a file."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    monkeypatch.setattr(results, "command", lambda: COMMAND)

    def append(name: str, size: int, speeds: Sequence[float], others: Sequence[Figure] = ()) -> Path:
        path = tmp_path / name
        results.append("report", [start_figure(1)], path)
        timed = [
            Figure("a: slow", "encode", 10, "KB/s", Spread(3, 9.5, 10, 10.5)),
            Figure("a: fast", "encode", speeds[1], "KB/s", Spread(3, *speeds)),
        ]
        results.append("compare", [Figure("a: slow", "size", size, "bytes"), *timed, *others], path)
        results.append("report", part_figures(Part("files", COMMAND, 1.5), 0), path)
        return path

    return append


def test_equal_runs_agree(append: Append, capsys: pytest.CaptureFixture[str]) -> None:
    """The last two of one file."""
    append("one", 7, (90, 100, 110))
    append("one", 100, (90, 100, 110))
    path = append("one", 100, (105, 115, 125))
    assert report_check.main([str(path)]) == 0
    output = capsys.readouterr().out
    assert "1 sizes, 0 of them differ or are missing" in output
    assert "1 ratios of speed, 0 of them beyond their spread" in output


def test_other_size_fails(append: Append, capsys: pytest.CaptureFixture[str]) -> None:
    """By one byte, and it is said which."""
    old, new = append("old", 100, (90, 100, 110)), append("new", 101, (90, 100, 110))
    assert report_check.main([str(old), str(new)]) == 1
    assert "compare: a: slow: size: 100 bytes, then 101 bytes\n1 sizes, 1 of them" in capsys.readouterr().out


def test_what_only_one_run_has_fails(append: Append, capsys: pytest.CaptureFixture[str]) -> None:
    """A size, or an opponent that could not run."""
    missing = [Figure("a: gone: found none", "missing", 0, "exit status")]
    old, new = append("old", 100, (90, 100, 110)), append("new", 100, (90, 100, 110), missing)
    assert report_check.main([str(old), str(new)]) == 1
    assert "a: gone: found none: missing: nothing, then 0 exit status" in capsys.readouterr().out


def test_speed_beyond_its_spread_is_told_and_is_no_failure(append: Append, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless the slack is wide enough for it."""
    old, new = append("old", 100, (90, 100, 110)), append("new", 100, (140, 150, 160))
    assert report_check.main([str(old), str(new)]) == 0
    output = capsys.readouterr().out
    assert "compare: a: fast: encode, times the slowest: 8.57 to 11.6, then 13.3 to 16.8\n" in output
    assert "1 ratios of speed, 1 of them beyond their spread" in output
    assert report_check.main([str(old), str(new), "--slack", "0.5"]) == 0
    assert "0 of them beyond" in capsys.readouterr().out


def test_slower_times_are_lower_speeds(append: Append, capsys: pytest.CaptureFixture[str]) -> None:
    """A case in seconds is held against the one that takes most of them."""

    def seconds(fast: float) -> list[Figure]:
        slow = Figure("b: slow", "time", 10, "s", Spread(3, 9, 10, 11))
        return [slow, Figure("b: fast", "time", fast, "s", Spread(3, fast * 0.9, fast, fast * 1.1))]

    old, new = (append(name, 1, (90, 100, 110), seconds(fast)) for name, fast in (("old", 1), ("new", 2)))
    assert report_check.main([str(old), str(new)]) == 0
    assert "compare: b: fast: time, times the slowest: 8.18 to 12.2, then 4.09 to 6.11" in capsys.readouterr().out


@pytest.mark.parametrize("n_runs", [0, 1])
def test_two_runs_are_needed(n_runs: int, append: Append, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with fewer is refused in one line."""
    path = tmp_path / "one"
    results.append("compare", [Figure("a", "size", 1, "bytes")], path)
    for _ in range(n_runs):
        append("one", 1, (90, 100, 110))
    assert report_check.main([str(path)]) == 1
    assert capsys.readouterr().err.startswith("report_check: ")
