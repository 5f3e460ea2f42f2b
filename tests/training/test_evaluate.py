# ruff: noqa: TID253
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmzip_training.corpus import HeldOut
from llmzip_training.evaluate import bits_per_byte


class UniformModel(nn.Module):
    """Gives every one of 16 tokens the same probability."""

    def forward(self, ids: Tensor) -> Tensor:
        """Equal logits."""
        return torch.zeros(*ids.shape, 16)


def test_uniform_model_costs_the_logarithm_of_the_vocabulary() -> None:
    """4 bits a token, boundaries and filling excluded, divided by the bytes of the text."""
    held_out = [
        HeldOut("a", np.array([3, 4, 0, 5, 6, 7, 0], dtype=np.uint16), 10),
        HeldOut("b", np.array([1, 2, 3], dtype=np.uint16), 6),
    ]
    result = bits_per_byte(UniformModel(), held_out, context=4, device="cpu")
    assert result == pytest.approx({"a": 2.0, "b": 2.0, "all": 2.0})


def test_first_windows_count_their_share_of_the_bytes() -> None:
    """A measurement of a part estimates that of the whole."""
    held_out = [HeldOut("a", np.arange(1, 13, dtype=np.uint16), 24)]
    assert bits_per_byte(UniformModel(), held_out, 4, "cpu", n_windows=1)["a"] == pytest.approx(2.0)
