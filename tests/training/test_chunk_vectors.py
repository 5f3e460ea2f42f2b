# ruff: noqa: TID253
from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llmzip.codec import Codec
from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioner_set import ConditionerSet
from llmzip.conditioning.conditioning import Conditioning
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.normal import step_of
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing
from llmzip_training.chunk_vectors import ChunkVectorsConfig, ChunkVectorsTrainer, trainer_for
from llmzip_training.frozen import load_frozen

NUMBERS = "".join(f"{i} times {i} is {i * i}; " for i in range(900)).encode()
WINDOWING = Windowing(64, 16)


@pytest.fixture(scope="module")
def tokens(tiny_artefact: Artefact) -> NDArray[np.int32]:
    """Of another kind of text than the model knows."""
    return Codec(tiny_artefact, WINDOWING).tokenise([NUMBERS])[0][:1500]


def _trainer(artefact: Artefact, seconds: float = 0.0, network: HyperpriorNetwork | None = None) -> ChunkVectorsTrainer:
    torch.set_num_threads(1)
    config = ChunkVectorsConfig(seconds, rate=0.02)
    return ChunkVectorsTrainer(load_frozen(artefact), WINDOWING, config, network)


def test_vectors_pay_for_themselves_in_the_encoder(tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """The payload under them is smaller than without, everything counted."""
    codec = Codec(tiny_artefact, WINDOWING)
    found = ConditionerSet(chunk_vectors=ChunkVectors.of(tiny_artefact.spec))
    trainer = _trainer(tiny_artefact, 3.0)
    with_them, without = (
        next(codec.with_conditioning(Conditioning(found, trainer=one)).encode([tokens], map)) for one in (trainer, None)
    )
    assert len(with_them) < 0.99 * len(without)


def test_a_chunk_of_one_window_has_none(tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """For they come behind it; one token more has some."""
    trainer = _trainer(tiny_artefact)
    assert trainer(tokens[:64]) is None
    found = trainer(tokens[:65])
    assert found is not None
    assert found.rows.shape == (tiny_artefact.spec.n_layers + 1, tiny_artefact.spec.width)


def test_a_network_sets_the_steps(
    tiny_artefact: Artefact, tiny_network: HyperpriorNetwork, tokens: NDArray[np.int32]
) -> None:
    """Else each row learns its own."""
    found, free = _trainer(tiny_artefact, 0.5, tiny_network)(tokens), _trainer(tiny_artefact, 0.5)(tokens)
    assert found is not None
    assert free is not None
    steps = [float(step_of(int(code))) for code in tiny_network.step_codes]
    assert found.steps == pytest.approx(steps, rel=1e-6)
    assert len(set(free.steps)) == len(free.steps)


def test_the_next_chunk_begins_where_the_last_one_ended(tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """One step from there, not from nothing; a trainer that has seen nothing gives the same again."""
    first, second = _trainer(tiny_artefact), _trainer(tiny_artefact)
    again = [first(tokens), second(tokens), first(tokens)]
    rows = [one.rows for one in again if one is not None]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert np.abs(rows[2]).max() > np.abs(rows[0]).max()


@pytest.mark.parametrize("rate", [1e30, 1e6])
def test_vectors_that_diverge_are_none(rate: float, tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """And the next chunk is no worse for it: it begins from nothing."""
    torch.set_num_threads(1)
    config = ChunkVectorsConfig(0.5, rate=rate)
    trainer = ChunkVectorsTrainer(load_frozen(tiny_artefact), WINDOWING, config, None)
    assert trainer(tokens) is None
    assert not trainer._last.any()


def test_training_takes_the_time_it_is_given(tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """No more than a step longer, and at least one step."""
    trainer = _trainer(tiny_artefact, 1.0)
    begin = time.monotonic()
    trainer(tokens)
    assert 1.0 <= time.monotonic() - begin < 20
    assert _trainer(tiny_artefact, 0.0)(tokens) is not None
    with pytest.raises(ConfigError, match="seconds"):
        ChunkVectorsConfig(-1.0)


def test_a_trainer_has_the_windows_of_the_codec(tiny_artefact: Artefact, tokens: NDArray[np.int32]) -> None:
    """And its model."""
    trainer = trainer_for(ChunkVectorsConfig(0.0), tiny_artefact, Windowing(32, 8), None, 1)
    assert trainer(tokens[:32]) is None
    assert trainer(tokens[:33]) is not None
