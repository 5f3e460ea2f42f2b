# ruff: noqa: TID253
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmzip_training import evaluate
from llmzip_training.corpus import HeldOut
from llmzip_training.distributed import Processes
from llmzip_training.evaluate import autocast, micro_batch_losses, shard_bits_per_byte, token_loss, total_bits
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.selection import memory_penalty


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
    result = shard_bits_per_byte(UniformModel(), held_out, context=4, device="cpu")
    assert result == pytest.approx({"a": 2.0, "b": 2.0, "all": 2.0})


def test_first_tokens_count_their_share_of_the_bytes() -> None:
    """A measurement of a part estimates that of the whole."""
    held_out = [HeldOut("a", np.arange(1, 13, dtype=np.uint16), 24)]
    assert shard_bits_per_byte(UniformModel(), held_out, 4, "cpu", n_tokens=4)["a"] == pytest.approx(2.0)


@pytest.fixture
def model() -> LanguageModel:
    """A tiny selective model whose blocks do something."""
    torch.manual_seed(0)
    model = LanguageModel(
        ModelConfig(16, 16, n_layers=2, n_heads=2, n_kv_heads=1, ffn_width=24, context=8, attention="selective")
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def ids() -> Tensor:
    """Six windows of eight tokens, boundaries among them."""
    return torch.randint(0, 16, (6, 8), generator=torch.Generator().manual_seed(1))


def test_measured_tokens_do_not_depend_on_the_size_of_a_batch(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same held-out tokens in batches of 1, 4 and 64 windows cost the same, within the rounding of float32."""
    tokens = np.random.default_rng(0).integers(1, 16, 205).astype(np.uint16)
    held_out = [HeldOut("a", tokens, 300)]
    results = []
    for batch in (1, 4, 64):
        monkeypatch.setattr(evaluate, "MEASURE_BATCH", batch)
        results.append(shard_bits_per_byte(model, held_out, 8, "cpu")["a"])
    assert results == pytest.approx([results[0]] * 3, rel=1e-5)


def test_processes_share_the_measured_tokens(model: LanguageModel) -> None:
    """What three processes measure adds up to what one does."""
    tokens = torch.from_numpy(np.random.default_rng(0).integers(1, 16, 1000))
    shares = [total_bits(model, tokens, 8, Processes(rank, 3)) for rank in range(3)]
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(total_bits(model, tokens, 8), rel=1e-6)


def test_micro_batch_losses_are_cross_entropy_and_penalty(model: LanguageModel, ids: Tensor) -> None:
    """The sum over targets that are no boundaries, and the penalty of the layers' F; no penalty where none is asked."""
    nats, penalty = micro_batch_losses(model, ids, ids, memory_reduce="max")
    forgettings: list[list[Tensor]] = []
    model(ids, forgettings)
    assert penalty.item() == memory_penalty(forgettings).item() > 0
    n_targets = int((ids != 0).sum())
    assert n_targets < ids.numel()
    assert nats.item() == pytest.approx(n_targets * token_loss(model, ids, ids).item(), rel=1e-6)
    _, mean = micro_batch_losses(model, ids, ids, memory_reduce="mean")
    assert mean.item() == memory_penalty(forgettings, reduce="mean").item() < penalty.item()
    plain, none = micro_batch_losses(model, ids, ids, memory_reduce=None)
    assert (plain.item(), none.item()) == (nats.item(), 0.0)


def test_autocast_follows_its_switch() -> None:
    """Products are in bfloat16 where asked for, and by default not on a CPU."""
    x = torch.ones(2, 2)
    for mode, dtype in (("bfloat16", torch.bfloat16), ("none", torch.float32), ("auto", torch.float32)):
        with autocast("cpu", mode):
            assert (x @ x).dtype == dtype
