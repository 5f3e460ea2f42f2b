# ruff: noqa: TID253
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.codec import Codec
from llmzip.conditioning.conditioner_file import read_conditioner_file
from llmzip.conditioning.conditioning import Conditioning
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing
from llmzip_training.conditioner_files import write_memory
from llmzip_training.frozen import load_frozen
from llmzip_training.memory import RADIUS, Memory, MemoryConfig, MemoryTrainer
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.streams import TokenStream, encode_stream

MakeText = Callable[[int], bytes]
Streams = tuple[TokenStream, TokenStream]


def _config(steps: int = 40, **options: Any) -> MemoryConfig:
    schedule = ScheduleConfig(steps=steps, log_every=4, measure_every=20, measure_windows=0)
    sizes: dict[str, Any] = {"directions": 2, "chunk": 128, "context": 48, "batch": 8, "rate": 0.01}
    return MemoryConfig(schedule, **(sizes | options))


def _trainer(artefact: Artefact, config: MemoryConfig, streams: Streams, out: Path) -> MemoryTrainer:
    return MemoryTrainer(load_frozen(artefact), artefact.id, config, *streams, out)


def test_memories_lower_the_total(tiny_artefact: Artefact, streams: Streams, tmp_path: Path) -> None:
    """Of held-out chunks, all bits counted; what is measured is what the report says."""
    trainer = _trainer(tiny_artefact, _config(), streams, tmp_path)
    without, _ = trainer.measure()
    assert trainer.train()
    report = trainer.result().report["held_out"]
    assert report["own"] < 0.95 * report["none"]
    assert trainer.best is not None
    assert report["own"] == pytest.approx(trainer.best[0])
    assert report["none"] < without


def test_the_archiver_gains_what_was_trained(
    tiny_artefact: Artefact, streams: Streams, numbers: MakeText, capitals: MakeText, tmp_path: Path
) -> None:
    """By the exact engine, chunks of each kind bring weights of their own and become smaller."""
    trainer = _trainer(tiny_artefact, _config(), streams, tmp_path)
    trainer.train()
    write_memory(trainer.result(), tiny_artefact, tmp_path / "memory.cond")
    file = read_conditioner_file(tmp_path / "memory.cond")
    plain = Codec(tiny_artefact, Windowing(64, 16))
    codec = plain.with_conditioning(Conditioning(file.unpack_set(tiny_artefact.spec), chooser=file.chooser))
    chunks = codec.tokenise([numbers(61) * 3, capitals(62) * 3])
    choices = [codec.conditioning.candidates(tokens, tiny_artefact.parameters.matrices["embed"]) for tokens in chunks]
    assert len({own.weights for _, own in choices}) == 2
    own, none = (list(one.encode(chunks, map)) for one in (codec, plain))
    assert all(len(a) < len(b) for a, b in zip(own, none, strict=True))


def test_a_continued_run_is_the_uninterrupted_one(tiny_artefact: Artefact, streams: Streams, tmp_path: Path) -> None:
    """Bit for bit."""
    whole = _trainer(tiny_artefact, _config(6), streams, tmp_path / "whole")
    whole.train()
    first = _trainer(tiny_artefact, _config(6), streams, tmp_path / "parts")
    for _ in range(3):
        first.advance()
    first.save()
    second = _trainer(tiny_artefact, _config(6), streams, tmp_path / "parts")
    second.train()
    assert all(torch.equal(a, b) for a, b in zip(whole.values().values(), second.values().values(), strict=True))


def test_the_first_weights_are_principal_components() -> None:
    """Of variance 1 and without correlation, so that rounding leaves something of them; none is too great."""
    features = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0) + 3
    memory = Memory(features, 3, 2)
    weights = memory.weights(features).detach()
    assert np.allclose(np.cov(weights.numpy().T), np.eye(3), atol=0.02)
    assert memory.weights(features * 1e6).abs().max() == RADIUS
    assert memory.shifts(weights).abs().sum() == 0


@pytest.mark.parametrize("options", [{"directions": 0}, {"directions": 65}, {"chunk": 47}, {"rate": 0.0}, {"batch": 0}])
def test_configuration_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        _config(**options)


def test_there_must_be_as_many_chunks_as_directions(
    tiny_artefact: Artefact, streams: Streams, numbers: MakeText, tmp_path: Path
) -> None:
    """Or there is nothing to learn them from."""
    few = encode_stream([numbers(1)[:100]], tiny_artefact)
    with pytest.raises(ConfigError, match="expected at least 2 chunks, found 1"):
        _trainer(tiny_artefact, _config(), (few, streams[1]), tmp_path)
