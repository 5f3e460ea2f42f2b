# ruff: noqa: TID253
from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.conditioned import ConditionedText, TextTrainer, embedding_deviation, pieces, random_prompt, with_levels
from llmzip.codec import Codec
from llmzip.conditioning.conditioner_set import ConditionerSet
from llmzip.conditioning.hyperpriors import Kind
from llmzip.errors import ConfigError, ExactnessError
from llmzip.lanes import Lanes
from llmzip.loading import choose_windowing
from llmzip.models.artefact import Artefact
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.steering import SteeringConfig

N_RAW = 1000
CHUNK = 300


@pytest.fixture
def codec(tiny_artefact: Artefact) -> Codec:
    """The model `tiny` in its usual windows."""
    return Codec(tiny_artefact, choose_windowing(tiny_artefact.spec, None, None))


@pytest.fixture
def text(codec: Codec, sample_text: bytes) -> ConditionedText:
    """A kilobyte in four chunks."""
    return ConditionedText(codec, sample_text[:N_RAW], CHUNK, 1)


def test_text_without_conditioner_costs_its_payloads(codec: Codec, text: ConditionedText, sample_text: bytes) -> None:
    """Those of the codec for the same pieces, and nothing beside."""
    coded = text.code()
    payloads = codec.encode(codec.tokenise(pieces(sample_text[:N_RAW], CHUNK)), map)
    assert (coded.payload_bits, coded.side_bits) == (8 * sum(map(len, payloads)), 0)
    assert coded.ratio == coded.ratio_without_side == coded.payload_bits / (8 * N_RAW)


@pytest.mark.parametrize("kind", ["gaussian", "empirical", "lloyd-max"])
def test_conditioner_costs_its_packed_bytes(kind: Kind, codec: Codec, text: ConditionedText) -> None:
    """They count in the total, and what is coded differs."""
    spec = codec.artefact.spec
    prompt = random_prompt(2, spec.width, 0.1)
    entry = with_levels(prompt, random_prompt(2, spec.width, 0.01, 1), kind, 16)
    coded = text.code(entry)
    assert coded.side_bits == 8 * len(ConditionerSet((entry,)).pack(spec))
    assert coded.total_bits == coded.payload_bits + coded.side_bits
    assert coded.ratio > coded.ratio_without_side
    assert coded.payload_bits != text.code().payload_bits
    assert max(len(group.hyperprior.levels) for group in entry.groups) <= 16


def test_string_costs_its_tokens(text: ConditionedText) -> None:
    """Two bytes a token are the most, and a word for the set."""
    entry = text.text_entry("def wrap(self, text):\n")
    assert 0 < text.code(entry).side_bits <= 16 * len(entry.tokens) + 32


def test_other_bytes_are_an_error(text: ConditionedText, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no figure of what does not decode."""
    end = Lanes.end
    monkeypatch.setattr(Lanes, "end", lambda lanes, lane: end(lanes, lane)[::-1])
    with pytest.raises(ExactnessError, match="expected the bytes of 4 chunks back"):
        text.code(text.text_entry("import re"))


def test_prompt_that_fills_the_window_is_refused(codec: Codec, text: ConditionedText) -> None:
    """By the codec."""
    spec = codec.artefact.spec
    prompt = random_prompt(spec.max_positions, spec.width, 0.1)
    with pytest.raises(ConfigError, match="window"):
        text.code(with_levels(prompt, prompt[:0], "gaussian", 4))


def test_training_is_repeatable(tiny_artefact: Artefact, sample_text: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """The same rows come of the same configuration, and what it tells of itself is no output of the benchmark."""
    n_threads = torch.get_num_threads()
    trainer = TextTrainer(tiny_artefact, sample_text[:N_RAW], 1)
    config = SteeringConfig(ScheduleConfig(steps=3), prefix_rows=2, shifts=False, context=32, batch=2)
    first, second = trainer.train(config), trainer.train(config)
    torch.set_num_threads(n_threads)
    assert np.array_equal(first.prefix, second.prefix)
    assert (first.prefix.shape, first.shifts.shape) == ((2, 256), (0, 256))
    assert capfd.readouterr().out == ""


def test_random_prompt_is_spread_as_the_embedding(tiny_artefact: Artefact) -> None:
    """Within what so many random numbers leave open."""
    deviation = embedding_deviation(tiny_artefact)
    embed = tiny_artefact.parameters.matrices["embed"]
    assert deviation == pytest.approx(float((embed.q * embed.scale[:, None]).std()))
    assert random_prompt(64, 256, deviation).std() == pytest.approx(deviation, rel=0.03)


def test_pieces_join_to_the_text(sample_text: bytes) -> None:
    """All but the last have the size asked for."""
    found = pieces(sample_text, 700)
    assert b"".join(found) == sample_text
    assert {len(piece) for piece in found[:-1]} == {700}
