# ruff: noqa: TID253
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip_training.chooser import choose
from llmzip_training.clusters import mean_embeddings
from llmzip_training.codebook import CodebookTrainer, fitted
from llmzip_training.codebook_config import CodebookConfig
from llmzip_training.frozen import load_frozen
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.streams import TokenStream, encode_stream

MakeText = Callable[[int], bytes]
Streams = tuple[TokenStream, TokenStream]


def _config(steps: int = 24, **options: Any) -> CodebookConfig:
    schedule = ScheduleConfig(steps=steps, log_every=4, measure_every=8, measure_windows=25)
    sizes: dict[str, Any] = {
        "entries": 2,
        "context": 48,
        "assign_tokens": 24,
        "batch": 8,
        "pool": 32,
        "epochs": 1,
        "patience": 0,
    }
    sizes |= {"rate": 0.02, "chooser_pieces": 48}
    return CodebookConfig(schedule, **(sizes | options))


def _trainer(artefact: Artefact, config: CodebookConfig, streams: Streams, out: Path) -> CodebookTrainer:
    return CodebookTrainer(load_frozen(artefact), artefact.id, config, *streams, out)


def test_entries_specialise_and_the_chooser_knows_which_fits(
    tiny_artefact: Artefact, streams: Streams, tmp_path: Path
) -> None:
    """Each kind of text has its entry, which it gains from, and the chooser picks it."""
    trainer = _trainer(tiny_artefact, _config(), streams, tmp_path)
    assert trainer.train()
    trained = trainer.result()
    held_out = trainer.held_out
    nats = trainer.nats(held_out, trainer.rounded(trainer.best[1]["entries"]))  # type: ignore[index]
    best = nats.argmin(dim=1)
    of_numbers = torch.tensor(
        [b";" in tiny_artefact.vocabulary.decode(p[p != 0].astype(np.int32)) for p in held_out.numpy()]
    )
    assert set(best.tolist()) == {1, 2}
    assert len(set(best[of_numbers].tolist())) == len(set(best[~of_numbers].tolist())) == 1
    embeddings = trainer.model.model.embed_tokens.weight
    chosen = choose(mean_embeddings(held_out, embeddings, 0), torch.from_numpy(trained.chooser))
    assert torch.equal(chosen, best)
    assert trained.report["chooser"] == trained.report["oracle"] > 0.05
    assert sum(entry["used"] for entry in trained.report["entries"]) == len(held_out)
    assert [(one.shape, two.shape) for one, two in trained.entries] == [((0, 256), (2, 256))] * 2
    assert (trained.steps.shape, trained.chooser.shape) == ((2, 2), (257, 2))


def test_resumed_run_is_the_uninterrupted_one(tiny_artefact: Artefact, streams: Streams, tmp_path: Path) -> None:
    """Bit for bit, in the middle of a round that is not warm any more."""
    config = _config(14, prefix_rows=2)
    whole = _trainer(tiny_artefact, config, streams, tmp_path / "whole")
    whole.train()
    first = _trainer(tiny_artefact, config, streams, tmp_path / "parts")
    for _ in range(10):
        first.advance()
        if first.step == 8:
            first.note(first.measure()[0])
    first.save()
    second = _trainer(tiny_artefact, config, streams, tmp_path / "parts")
    second.train()
    assert torch.equal(second.entries, whole.entries)
    found, expected = second.result(), whole.result()
    assert np.array_equal(found.chooser, expected.chooser)
    assert found.report == expected.report


def test_entry_that_nothing_goes_to_begins_anew(tiny_artefact: Artefact, streams: Streams, tmp_path: Path) -> None:
    """After some rounds, with the pieces that gain least."""
    trainer = _trainer(tiny_artefact, _config(40), streams, tmp_path)
    for _ in range(8):
        trainer.advance()
    with torch.no_grad():
        trainer.entries[1] = 50.0
    labels = set()
    for _ in range(12):
        trainer.advance()
        labels |= set(trainer.state()["labels"].tolist())
    assert 2 in labels
    assert trainer.entries[1].abs().max() < 25.0


def test_fewer_pieces_than_a_pool_are_enough(
    tiny_artefact: Artefact, streams: Streams, numbers: MakeText, tmp_path: Path
) -> None:
    """One document, more entries than pieces."""
    one = encode_stream([numbers(3)], tiny_artefact)
    trainer = _trainer(tiny_artefact, _config(10, entries=9, context=64), (one, streams[1]), tmp_path)
    trainer.train()
    assert np.isfinite(trainer.result().chooser).all()


def test_texts_without_a_piece_are_refused(tiny_artefact: Artefact, streams: Streams, tmp_path: Path) -> None:
    """By which it is."""
    short = encode_stream([b"x"], tiny_artefact)
    with pytest.raises(ConfigError, match="training text: expected a piece of 6 tokens"):
        _trainer(tiny_artefact, _config(), (short, streams[1]), tmp_path)
    with pytest.raises(ConfigError, match="held-out text: expected a piece of 6 tokens"):
        _trainer(tiny_artefact, _config(), (streams[0], short), tmp_path)


def test_pieces_leave_room_for_the_prompt(tiny_artefact: Artefact) -> None:
    """Both together are as long as the model's context; a prompt that fills it is refused."""
    model = load_frozen(tiny_artefact)
    assert fitted(_config(prefix_rows=20, context=512), model).context == 108
    with pytest.raises(ConfigError, match="fewer rows"):
        fitted(_config(prefix_rows=128), model)


@pytest.mark.parametrize(
    "options",
    [{"shifts": False}, {"entries": 0}, {"rate": -1.0}, {"pool": 0}, {"chooser_pieces": 1}, {"prefix_rows": -1}],
    ids=lambda options: next(iter(options)),
)
def test_configuration_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match=r"expected .* found"):
        _config(**options)
