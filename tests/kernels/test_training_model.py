# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llmzip_training import model as models
from llmzip_training import selection
from llmzip_training.evaluate import micro_batch_losses
from llmzip_training.model import Attention, LanguageModel, ModelConfig, use_kernels
from llmzip_training.selection import Forgotten, SelectionRules, memory_penalty, runs_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = ModelConfig(20, 16, 2, 4, 2, 24, context=17, attention="selective")


@pytest.fixture
def model() -> LanguageModel:
    """In which no matrix is 0."""
    torch.manual_seed(0)
    model = LanguageModel(CONFIG).double().to(DEVICE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Layers take the CPU for a GPU; the queries that they had kernels for."""
    seen: list[Tensor] = []

    def runs(q: Tensor) -> bool:
        seen.append(q)
        return True

    monkeypatch.setattr(models, "runs_kernels", runs)
    return seen


def losses_and_gradients(model: LanguageModel, reduce: str) -> list[Tensor]:
    """Cross-entropy, memory penalty, and the gradients of their sum."""
    targets = torch.randint(1, 20, (2, 17), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    nats, penalty = micro_batch_losses(model, targets.roll(1, dims=1), targets, reduce)
    gradients = torch.autograd.grad(nats / targets.numel() + penalty, list(model.parameters()))
    return [nats, penalty, *gradients]


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_training_by_kernels_is_training_by_eager_code(
    reduce: str, model: LanguageModel, kernels_everywhere: list[Tensor]
) -> None:
    """Both losses and all gradients are the same to rounding."""
    use_kernels(model, False)
    expected = losses_and_gradients(model, reduce)
    assert kernels_everywhere == []
    use_kernels(model, True)
    found = losses_and_gradients(model, reduce)
    assert len(kernels_everywhere) == CONFIG.n_layers
    assert expected[1].item() > 0.1
    for x, y in zip(found, expected, strict=True):
        # Logits are brought to float32 before the cross-entropy.
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


def test_cpu_runs_eager_code(model: LanguageModel) -> None:
    """Though kernels are allowed, F is at hand after a forward pass."""
    assert all(layer.kernels for layer in model.modules() if isinstance(layer, Attention))
    assert not runs_kernels(torch.zeros(1, 1, 1, 16))
    forgettings: list[list[Tensor] | Forgotten] = []
    model.cpu()(torch.ones(1, 5, dtype=torch.int64), forgettings)
    assert len(forgettings) == CONFIG.n_layers
    for layer in forgettings:
        assert isinstance(layer, list)
        assert [block.shape for block in layer] == [(1, 5, 5)]


def test_penalty_from_sums_is_that_from_forgetting() -> None:
    """In both reductions; sums of another limit are refused."""
    torch.manual_seed(3)
    heads = [torch.randn(2, 2, 17, 4, dtype=torch.float64, device=DEVICE) for _ in range(3)]
    _, blocks = selection.selective_attention(heads[0], heads[1], heads[2], 0.5, SelectionRules())
    _, forgotten = selection.fused_attention(heads[0], heads[1], heads[2], 0.5, SelectionRules(), limit=0.7)
    for reduce in ("max", "mean"):
        expected = memory_penalty([blocks], 0.7, reduce).item()
        assert memory_penalty([forgotten], 0.7, reduce).item() == pytest.approx(expected, abs=1e-14)
    with pytest.raises(ValueError, match=r"expected a limit of 0\.7, found 1\.0"):
        memory_penalty([forgotten])
