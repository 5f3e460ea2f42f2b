# ruff: noqa: TID253
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from llmzip.errors import ConfigError
from llmzip_training.held_out import cut_windows, nats_per_token
from llmzip_training.tokenizer import train_tokenizer

TEXTS = ["abcdef", "ghi"]


class UniformModel(nn.Module):
    """Gives every one of 512 tokens the same probability."""

    def forward(self, ids: Tensor) -> Tensor:
        """Equal logits."""
        return torch.zeros(*ids.shape, 512)


def test_windows_hold_all_text_and_count_it() -> None:
    """9 characters are 9 tokens and 9 bytes; two boundaries are among them and one place is filled."""
    tokenizer = train_tokenizer(iter([""]), 257)
    windows = cut_windows(TEXTS, tokenizer, 4)
    assert windows.targets.shape == (3, 4)
    assert (windows.n_tokens, windows.n_bytes) == (9, 9.0)
    text = tokenizer.decode(windows.targets.flatten().tolist())
    assert text == "abcdefghi"


def test_some_windows_lie_at_equal_distances_and_count_their_share() -> None:
    """Of three windows the first and the second, 7 of 9 tokens."""
    tokenizer = train_tokenizer(iter([""]), 257)
    everything, some = cut_windows(TEXTS, tokenizer, 4), cut_windows(TEXTS, tokenizer, 4, 2)
    assert torch.equal(some.targets, everything.targets[[0, 1]])
    assert (some.n_tokens, some.n_bytes) == (7, 7.0)
    assert torch.equal(cut_windows(TEXTS, tokenizer, 4, 5).targets, everything.targets)


def test_uniform_model_costs_the_logarithm_of_its_vocabulary() -> None:
    """In nats a token and in bits per byte; boundaries cost nothing."""
    windows = cut_windows(["aé" * 5], train_tokenizer(iter(["é"]), 258), 8)
    assert (windows.n_tokens, windows.n_bytes) == (10, 15.0)
    nats = nats_per_token(UniformModel(), windows)
    assert nats == pytest.approx(math.log(512))
    assert windows.bits_per_byte(nats) == pytest.approx(9 * 10 / 15)


def test_no_text_is_refused() -> None:
    """Shards of one document each hold nothing out."""
    with pytest.raises(ConfigError, match="held-out text: expected at least one document"):
        cut_windows([], train_tokenizer(iter([""]), 257), 8)
