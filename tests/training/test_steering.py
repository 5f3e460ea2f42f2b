# ruff: noqa: TID253
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip_training.frozen import load_frozen
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.steering import SteeringConfig, SteeringTrainer, default_steps, fitted
from llmzip_training.streams import TokenStream, encode_stream

NUMBERS = "".join(f"{i} times {i} is {i * i}; " for i in range(900)).encode()


@pytest.fixture
def text(tiny_artefact: Artefact) -> TokenStream:
    """Another kind of text than the model knows."""
    return encode_stream([NUMBERS], tiny_artefact)


def _config(steps: int = 6, **options: Any) -> SteeringConfig:
    schedule = ScheduleConfig(steps=steps, log_every=2, measure_every=2, measure_windows=8)
    return SteeringConfig(schedule, **({"context": 32, "batch": 4, "rate": 0.02} | options))


def _trainer(
    artefact: Artefact, config: SteeringConfig, text: TokenStream, out: Path, held_out: TokenStream | None = None
) -> SteeringTrainer:
    return SteeringTrainer(load_frozen(artefact), artefact.id, config, text, out, held_out)


@pytest.mark.parametrize("noise", ["uniform", "rounded"])
def test_training_lowers_the_total_bits_of_a_text(
    noise: str, tiny_artefact: Artefact, text: TokenStream, tmp_path: Path
) -> None:
    """Bits of the rounded conditioner and of the text under it are fewer than those of the text alone."""
    trainer = _trainer(tiny_artefact, _config(30, noise=noise, context=64), text, tmp_path)
    assert trainer.train()
    trained = trainer.result()
    report = trained.report
    assert report["bits_with"] + report["conditioner_bits"] < report["bits_without"]
    assert report["pays"]
    assert report["net_gain"] < report["gain"] < 1
    assert (trained.prefix.shape, trained.shifts.shape, trained.steps.shape) == ((0, 256), (2, 256), (2,))
    assert {array.dtype for array in (trained.prefix, trained.shifts, trained.steps)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("initial", ["text", "random"])
def test_prompts_are_trained_too(initial: str, tiny_artefact: Artefact, text: TokenStream, tmp_path: Path) -> None:
    """Alone, and one step for all of its rows."""
    config = _config(prefix_rows=3, shifts=False, initial=initial)
    trainer = _trainer(tiny_artefact, config, text, tmp_path)
    first = trainer.rows.rows.detach().clone()
    embeddings = trainer.model.model.embed_tokens.weight
    are_embeddings = all((row == embeddings).all(dim=1).any() for row in first)
    assert are_embeddings == (initial == "text")
    trainer.train()
    trained = trainer.result()
    assert (trained.prefix.shape, trained.shifts.shape, trained.steps.shape) == ((3, 256), (0, 256), (1,))
    assert not torch.equal(trainer.rows.rows, first)


def test_resumed_run_is_the_uninterrupted_one(tiny_artefact: Artefact, text: TokenStream, tmp_path: Path) -> None:
    """Bit for bit."""
    config = _config(8, prefix_rows=2)
    whole = _trainer(tiny_artefact, config, text, tmp_path / "whole")
    whole.train()
    first = _trainer(tiny_artefact, config, text, tmp_path / "parts")
    for _ in range(3):
        first.advance()
        if first.step == 2:
            first.note(first.measure()[0])
    first.save()
    second = _trainer(tiny_artefact, config, text, tmp_path / "parts")
    second.train()
    for name, tensor in whole.values().items():
        assert torch.equal(second.values()[name], tensor)
    found, expected = second.result(), whole.result()
    assert found.report == expected.report
    assert np.array_equal(found.shifts, expected.shifts)


def test_coarser_conditioners_come_of_a_greater_weight(
    tiny_artefact: Artefact, text: TokenStream, tmp_path: Path
) -> None:
    """The weight of the rate trades bits of the conditioner for bits of the text."""
    bits = []
    for weight in (0.1, 30.0):
        trainer = _trainer(tiny_artefact, _config(30, rate_weight=weight), text, tmp_path / f"{weight}")
        trainer.train()
        bits.append(trainer.rows.bits(trainer.rows.rounded()).item())
    assert bits[1] < 0.8 * bits[0]


def test_shared_conditioner_is_measured_on_held_out_text(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """The early stop ends the run where that gains no more; bits of the conditioner do not count there."""
    text, held_out = (encode_stream([part], tiny_artefact) for part in (NUMBERS[:12000], NUMBERS[12000:]))
    trainer = _trainer(tiny_artefact, _config(40, patience=1, rate=2.0), text, tmp_path, held_out)
    trainer.train()
    report = trainer.result().report
    assert trainer.best is not None
    assert report["measured"] == "held_out"
    assert report["bits_with"] / report["bytes"] == pytest.approx(trainer.best[0], rel=1e-6)


def test_result_of_a_run_without_measurement_is_refused(
    tiny_artefact: Artefact, text: TokenStream, tmp_path: Path
) -> None:
    """There is nothing that could be the best."""
    with pytest.raises(ConfigError, match="expected a run that was measured"):
        _trainer(tiny_artefact, _config(), text, tmp_path).result()


@pytest.mark.parametrize("n_bytes", [1, 2, 5, 60, 400])
def test_short_texts_have_shorter_windows(n_bytes: int, tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Even a text of one token can be trained on."""
    text = encode_stream([NUMBERS[:n_bytes]], tiny_artefact)
    config = fitted(_config(2, prefix_rows=1), text, load_frozen(tiny_artefact))
    trainer = _trainer(tiny_artefact, config, text, tmp_path)
    trainer.train()
    assert np.isfinite(trainer.result().report["bits_with"])


def test_windows_leave_room_for_the_prompt(tiny_artefact: Artefact, text: TokenStream) -> None:
    """Both together are as long as the model's context; a prompt that fills it is refused."""
    model = load_frozen(tiny_artefact)
    assert fitted(_config(prefix_rows=20, context=512), text, model).context == 108
    with pytest.raises(ConfigError, match="fewer rows"):
        fitted(_config(prefix_rows=128), text, model)


def test_long_texts_get_more_steps() -> None:
    """Within bounds."""
    assert [default_steps(n, _config(context=512, batch=8)) for n in (100, 120_000, 10**9)] == [20, 58, 200]


@pytest.mark.parametrize(
    "options",
    [
        {"shifts": False},
        {"initial": "zeros"},
        {"noise": "none"},
        {"prefix_rows": -1},
        {"batch": 0},
        {"context": 0},
        {"rate": 0.0},
        {"rate_weight": -1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_configuration_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match=r"expected .* found"):
        _config(**options)
