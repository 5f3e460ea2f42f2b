# ruff: noqa: TID253
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmzip.cli import main as llmzip
from llmzip_training import budget_curve, compare
from llmzip_training.export import CUTOFF, export_model
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.tokenizer import train_tokenizer

Run = Callable[..., int]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported selective model of two layers over bytes."""
    torch.manual_seed(0)
    tokenizer_json = train_tokenizer(iter([""]), 257).to_str()
    config = ModelConfig(257, 16, 2, 2, 2, 16, context=20, attention="selective")
    export_model(LanguageModel(config), tokenizer_json, tmp_path / "model")
    return tmp_path / "model"


def test_model_is_exported_with_budgets(run: Run, model: Path, tmp_path: Path) -> None:
    """From the command line, by layer; the cutoff has a default."""
    assert run(llmzip, "train", "export", model, tmp_path / "a", "--budgets", "8/0", "--cutoff", "3.5") == 0
    assert run(llmzip, "train", "export", model, tmp_path / "b") == 0
    found = [json.loads((tmp_path / name / "config.json").read_text())["selection"] for name in "ab"]
    assert found == [{"cutoff": 3.5, "budgets": [8, 0]}, {"cutoff": CUTOFF, "budgets": []}]


def test_curve_is_measured_from_the_command_line(run: Run, model: Path, tmp_path: Path) -> None:
    """By `llmzip train budget-curve`."""
    (tmp_path / "text").write_text("some text " * 9)
    options = ["--held-out", tmp_path / "text", "--out", tmp_path / "out", "--ratios", 2, "--windows", 2]
    assert run(llmzip, "train", "budget-curve", model, *options) == 0
    assert len((tmp_path / "out" / "budget_curve.csv").read_text().splitlines()) == 1 + 3 * 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("export", "nosuch", "out"), 61, "nosuch: model: expected tokenizer.json"),
        (("export", "{model}", "out", "--budgets", "8"), 50, "expected 2 budgets or none, found 1"),
        (("export", "{model}", "out", "--budgets", "8/x"), 50, "--budgets: expected whole numbers between strokes"),
        (("export", "{model}", "out", "--cutoff", "1000"), 50, "to 512 nats, found 1000"),
        (("budget-curve", "{model}", "--out", "out"), 50, "expected one of --data and --held-out"),
        (("budget-curve", "nosuch", "--out", "out", "--data", "nosuch"), 61, "nosuch: model: expected config.json"),
        (("compare", "--data", "nosuch", "--out", "out"), 61, "nosuch: training data: expected *.txt.zst"),
        (
            ("compare", "--data", "nosuch", "--out", "out", "--heads", "3"),
            50,
            "expected width divisible by 2 * n_heads",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_line_and_their_exit_code(
    run: Run,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    """No traceback."""
    monkeypatch.chdir(tmp_path)
    assert run(llmzip, "train", *(argument.format(model=model) for argument in arguments)) == code
    errors = capfd.readouterr().err
    assert errors.startswith("llmzip: ")
    assert words in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (budget_curve.main, ("nosuch", "--out", "out", "--data", "nosuch")),
        (compare.main, ("--out", "out", "--data", "nosuch")),
    ],
    ids=["budget_curve", "compare"],
)
def test_modules_run_as_the_commands_do(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    main: Callable[[], None],
    arguments: tuple[str, ...],
) -> None:
    """With the same errors."""
    monkeypatch.chdir(tmp_path)
    assert run(main, *arguments) == 61
    assert capfd.readouterr().err.startswith("llmzip: nosuch: ")
