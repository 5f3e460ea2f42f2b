from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from bench import results, trees
from llmzip.errors import ExactnessError

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, a program, an empty folder and a link."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    root = tmp_path / "some"
    (root / "inner" / "empty").mkdir(parents=True)
    (root / "__pycache__").mkdir()
    (root / "text").write_text("To be, or not to be.\n" * 40)
    (root / "inner" / "run").write_bytes(bytes(range(256)))
    (root / "inner" / "run").chmod(0o750)
    (root / "link").symlink_to("inner/run")
    os.utime(root / "text", ns=(1, 1_000_000_007))
    return root


def test_a_folder_comes_back(folder: Path, tmp_path: Path) -> None:
    """Sizes and times are recorded; what programs leave is left out."""
    assert trees.main([str(folder), "--model", "tiny", "--results", str(tmp_path / "results.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["case"], row["metric"]) for row in rows] == [
        ("tiny, some, 6 members, 1096 bytes", "archive"),
        ("tiny, some, 6 members, 1096 bytes: compress", "time"),
        ("tiny, some, 6 members, 1096 bytes: extract", "time"),
    ]


@pytest.mark.parametrize("change", ["chmod", "touch", "write", "unlink"])
def test_a_difference_is_told(
    change: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of content, mode or time, or a member that is missing; nothing is recorded."""
    usual = trees._run

    def _run(arguments: list[str]) -> None:
        usual(arguments)
        if arguments[0] == "extract":
            path = Path(arguments[3]) / "some" / "text"
            status = path.stat()
            if change == "unlink":
                path.unlink()
            if change == "write":
                path.write_text("other")
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            if change == "touch":
                path.touch()
            if change == "chmod":
                path.chmod(0o600)

    monkeypatch.setattr(trees, "_run", _run)
    assert trees.main([str(folder), "--model", "tiny", "--results", str(tmp_path / "results.csv")]) == 1
    assert "text" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()


def test_a_refusal_is_told() -> None:
    """With what llmzip says."""
    with pytest.raises(ExactnessError, match=r"extract: expected exit status 0, found 61: llmzip: none"):
        trees._run(["extract", "none"])


@pytest.mark.slow
def test_the_source_tree_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This project's own, by the bundled model."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    root = Path(trees.__file__).parents[1]
    assert trees.main([*(str(root / name) for name in ("llmzip", "tests")), "--results", str(tmp_path / "r.csv")]) == 0
