from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _README, flags=re.DOTALL)


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's example does what it says, with the bundled model."""
    monkeypatch.chdir(tmp_path)
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_readme_begins_with_the_two_commands() -> None:
    """The first command installs and runs the main job, the second installs and runs the tests, as .ci/run does."""
    first, second = _blocks("sh")[:2]
    assert first.startswith("pip install . && llmzip compress")
    assert second == "pip install -e '.[test]' && pytest -q -n 2 --dist worksteal\n"
    ci = (_ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install --quiet -e '.[test]'" in ci
    assert re.search(r"^pytest -q -n 2 --dist worksteal$", ci, flags=re.MULTILINE)


def test_commands_of_the_readme_exist() -> None:
    """Every `llmzip ...` line of README names a command that there is, with options that it has."""
    from typer.testing import CliRunner

    from llmzip.cli import app

    lines = [line.split("#")[0] for block in _blocks("sh") for line in re.split(r"\n|&&|;|\|", block)]
    calls = [line.split() for line in lines if line.strip().startswith("llmzip ")]
    assert len(calls) >= 10
    for call in calls:
        options = [word for word in call if word.startswith("-") and word != "-"]
        command = call[1:3] if call[1] == "models" else call[1:2]
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, call
        for option in options:
            assert option in shown.stdout, (call, option)


def test_the_files_that_the_readme_links_to_exist() -> None:
    """No link of README leads nowhere."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", _README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (_ROOT / link).exists()] == []
