# ruff: noqa: TID253
from __future__ import annotations

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError
from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.windows import WindowSampler, consecutive_windows, window_inputs


def test_inputs_are_the_boundary_token_and_all_targets_but_the_last() -> None:
    """Each window begins as the archiver begins it."""
    targets = torch.tensor([[5, 6, 7], [8, 9, 4]])
    assert window_inputs(targets).tolist() == [[END_OF_DOCUMENT, 5, 6], [END_OF_DOCUMENT, 8, 9]]


def test_targets_are_consecutive_tokens_and_no_token_comes_twice_in_an_epoch() -> None:
    """On a stream that counts, windows count, and an epoch covers all of it but the ends."""
    sampler = WindowSampler(np.arange(1, 1001), context=7, batch=4, seed=3)
    seen = []
    for step in range(sampler.n_windows // 4):
        targets = sampler.targets(step)
        assert torch.equal(targets.diff(dim=1), torch.ones(4, 6, dtype=torch.int64))
        seen += targets.flatten().tolist()
    assert len(set(seen)) == len(seen) >= 1000 - 6 * 7


def test_batch_is_a_function_of_the_step() -> None:
    """A second sampler that starts in the middle deals the same windows, and epochs differ."""
    tokens = np.arange(1, 501)
    first, second = (WindowSampler(tokens, context=5, batch=3, seed=9) for _ in range(2))
    dealt = [first.targets(step) for step in range(70)]
    assert torch.equal(second.targets(69), dealt[69])
    assert torch.equal(second.targets(2), dealt[2])
    assert not torch.equal(dealt[first.n_windows // 3], dealt[0])


def test_stream_too_short_for_a_batch_is_refused() -> None:
    """An empty epoch would be a division by zero later on."""
    with pytest.raises(ConfigError, match="expected at least 2 windows of 8 tokens, found 1"):
        WindowSampler(np.arange(17), context=8, batch=2, seed=0)


def test_consecutive_windows_hold_all_tokens_and_fill_the_last_row() -> None:
    """Nothing that is measured is dropped or counted twice."""
    assert consecutive_windows(torch.tensor([3, 4, 5, 6, 7]), 3).tolist() == [[3, 4, 5], [6, 7, END_OF_DOCUMENT]]


def test_all_token_values_of_16_bits_are_kept() -> None:
    """Tokens of 2**15 and more do not turn negative on their way from the file."""
    tokens = np.full(40, 65_535, dtype=np.uint16)
    assert WindowSampler(tokens, context=4, batch=2, seed=0).targets(0).tolist() == [[65_535] * 4] * 2
