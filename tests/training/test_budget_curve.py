# ruff: noqa: TID253
from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmzip.errors import ConfigError, FileError
from llmzip_training.budget_curve import AllocationStep, CurveJob, allocate_budgets, measure_curve, run_curve
from llmzip_training.export import export_model
from llmzip_training.held_out import cut_windows, nats_per_token
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.tokenizer import train_tokenizer

TEXT = "".join(chr(97 + i * i % 23) for i in range(300))


def make_model(attention: str) -> LanguageModel:
    """A tiny model over bytes with no tensor at its initial zeros."""
    torch.manual_seed(1)
    config = ModelConfig(257, 16, 2, 2, 2, 16, context=20, attention=attention)  # type: ignore[arg-type]
    model = LanguageModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_curve_ends_at_the_unpruned_loss_in_every_mode() -> None:
    """20 ratios of three modes, budgets rounded down but never below 1."""
    model = make_model("selective")
    windows = cut_windows([TEXT], train_tokenizer(iter([""]), 257), 17)
    points = list(measure_curve("model", model, windows, 20))
    assert [point.mode for point in points] == ["recompute"] * 20 + ["evict"] * 20 + ["recency"] * 20
    assert [point.budget for point in points[:20]] == [max(1, int(17 * i / 20 + 1e-9)) for i in range(1, 21)]
    assert [point.ratio for point in points[20:40]] == pytest.approx([i / 20 for i in range(1, 21)])
    unpruned = nats_per_token(model, windows)
    for last in points[19::20]:
        assert last.nats_per_token == pytest.approx(unpruned, abs=1e-6)
        assert last.bits_per_byte == pytest.approx(unpruned / math.log(2), abs=1e-6)
    assert points[0].nats_per_token != pytest.approx(unpruned, abs=1e-4)


def test_curve_its_picture_and_the_allocation_are_written(tmp_path: Path) -> None:
    """With an unselective model as control."""
    for attention in ("selective", "plain"):
        export_model(make_model(attention), train_tokenizer(iter([""]), 257).to_str(), tmp_path / attention)
    (tmp_path / "text").write_text(TEXT)
    job = CurveJob(tmp_path / "selective", tmp_path / "out", held_out=(tmp_path / "text",), ratios=4, windows=3)
    run_curve(replace(job, control=tmp_path / "plain", allowed_rise=0.01))
    with (tmp_path / "out" / "budget_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["mode"]) for row in rows[::4]] == [
        ("model", "recompute"),
        ("model", "evict"),
        ("model", "recency"),
        ("control", "recency"),
    ]
    assert [row["budget"] for row in rows[:4]] == ["5", "10", "15", "20"]
    assert (tmp_path / "out" / "budget_curve.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "allocation.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert (steps[0]["layer_0"], steps[0]["layer_1"]) == ("20", "20")
    assert float(steps[0]["nats_per_token"]) == pytest.approx(float(rows[3]["nats_per_token"]))
    assert all(float(step["nats_per_token"]) <= float(steps[0]["nats_per_token"]) + 0.01 for step in steps)


def test_allocation_of_a_plain_model_is_refused(tmp_path: Path) -> None:
    """It evicts nothing by itself."""
    export_model(make_model("plain"), train_tokenizer(iter([""]), 257).to_str(), tmp_path / "plain")
    (tmp_path / "text").write_text(TEXT)
    job = CurveJob(tmp_path / "plain", tmp_path / "out", held_out=(tmp_path / "text",), ratios=1, windows=1)
    with pytest.raises(ConfigError, match="expected a selective model for --allowed-rise"):
        run_curve(replace(job, allowed_rise=0.1))


@pytest.mark.parametrize(
    ("text", "context", "error", "message"),
    [
        (b"ab\xffc", 0, FileError, r"text: held-out text: expected UTF-8, found byte 0xff at offset 2"),
        (b"abc", 21, ConfigError, r"model: expected windows of at most 20 tokens, found 21"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, text: bytes, context: int, error: type[Exception], message: str
) -> None:
    """Text that is no UTF-8 is not mended in silence, and a window must fit the model."""
    export_model(make_model("plain"), train_tokenizer(iter([""]), 257).to_str(), tmp_path / "model")
    (tmp_path / "text").write_bytes(text)
    job = CurveJob(tmp_path / "model", tmp_path / "out", held_out=(tmp_path / "text",), context=context)
    with pytest.raises(error, match=message):
        run_curve(job)


@pytest.mark.parametrize("texts", [{}, {"data": Path("d"), "held_out": (Path("t"),)}])
def test_text_comes_from_one_place(texts: dict[str, Any]) -> None:
    """From shards, or from files."""
    with pytest.raises(ConfigError, match="expected one of --data and --held-out"):
        CurveJob(Path("model"), Path("out"), **texts)


def test_allocation_lowers_the_layer_that_costs_least() -> None:
    """By hand: a token less costs layer 0 three times what it costs layer 1, and the bound ends it."""

    def loss(budgets: tuple[int, ...]) -> float:
        return 3 * (32 - budgets[0]) + 1 * (32 - budgets[1])

    steps = list(allocate_budgets(loss, (32, 32), bound=50))
    assert steps == [
        AllocationStep((32, 32), 0),
        AllocationStep((32, 24), 8),
        AllocationStep((32, 16), 16),
        AllocationStep((32, 8), 24),
        AllocationStep((24, 8), 48),
    ]


def test_allocation_stops_where_nothing_can_be_lowered() -> None:
    """No layer falls to 0, which would mean no limit; a start above the bound gives nothing."""
    assert [step.budgets for step in allocate_budgets(lambda _: 0.0, (9, 8), 1.0)] == [(9, 8), (1, 8)]
    assert list(allocate_budgets(lambda _: 2.0, (9, 8), 1.0)) == []
