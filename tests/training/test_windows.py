# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch

from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.windows import WindowSampler, consecutive_windows, window_inputs


def test_inputs_are_the_boundary_token_and_all_targets_but_the_last() -> None:
    """Each window begins as the archiver begins it."""
    targets = torch.tensor([[5, 6, 7], [8, 9, 4]])
    assert window_inputs(targets).tolist() == [[END_OF_DOCUMENT, 5, 6], [END_OF_DOCUMENT, 8, 9]]


def test_targets_are_consecutive_tokens_and_no_token_comes_twice_in_an_epoch() -> None:
    """On a stream that counts, windows count, and an epoch covers all of it but the ends."""
    sampler = WindowSampler(torch.arange(1, 1001), context=7, batch=4, seed=3)
    seen = []
    for step in range(sampler.n_windows // 4):
        _, targets = sampler.batch(step)
        assert torch.equal(targets.diff(dim=1), torch.ones(4, 6, dtype=torch.int64))
        seen += targets.flatten().tolist()
    assert len(set(seen)) == len(seen) >= 1000 - 6 * 7


def test_batch_is_a_function_of_the_step() -> None:
    """A second sampler that starts in the middle deals the same windows, and epochs differ."""
    tokens = torch.arange(1, 501)
    first, second = (WindowSampler(tokens, context=5, batch=3, seed=9) for _ in range(2))
    dealt = [first.batch(step)[1] for step in range(70)]
    assert torch.equal(second.batch(69)[1], dealt[69])
    assert torch.equal(second.batch(2)[1], dealt[2])
    assert not torch.equal(dealt[first.n_windows // 3], dealt[0])


def test_stream_too_short_for_a_batch_is_refused() -> None:
    """An empty epoch would be a division by zero later on."""
    with pytest.raises(ValueError, match="expected 2 windows of 8, found 1"):
        WindowSampler(torch.arange(17), context=8, batch=2, seed=0)


def test_consecutive_windows_hold_all_tokens_and_fill_the_last_row() -> None:
    """Nothing that is measured is dropped or counted twice."""
    assert consecutive_windows(torch.tensor([3, 4, 5, 6, 7]), 3).tolist() == [[3, 4, 5], [6, 7, END_OF_DOCUMENT]]
