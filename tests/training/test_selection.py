# ruff: noqa: TID253
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from llmzip_training import selection
from llmzip_training.evaluate import token_loss
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.selection import SelectionRules, forgetting_blocks, memory_penalty, selective_attention
from llmzip_training.windows import window_inputs

# Scores of one head of width 1: with queries (1, 2, -1, 3) and keys (1, 1, 2, 1) row t is q_t * keys.
HAND_Q = (1.0, 2.0, -1.0, 3.0)
HAND_K = (1.0, 1.0, 2.0, 1.0)
# S is what is positive of rows (1 . . .), (2 2 . .), (-1 -1 -2 .), (3 3 6 3), and F what stands above it.
HAND_F = {
    SelectionRules(protect_first=False): [[0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0], [2, 0, 0, 0]],
    SelectionRules(protect_first=False, mask_self=True): [[0, 0, 0, 0], [1, 0, 0, 0], [3, 2, 0, 0], [3, 2, 0, 0]],
    SelectionRules(protect_first=True, mask_self=True): [[0, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0]],
    SelectionRules(protect_first=True): [[0, 0, 0, 0]] * 4,
}


def random_heads(length: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 4 heads, keys and values of 2, each of width 6, for 2 windows."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4, length, 6), (2, 2, length, 6), (2, 2, length, 6))
    q, k, v = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return q, k, v


def whole_forgetting(q: Tensor, k: Tensor, rules: SelectionRules) -> Tensor:
    """F of all queries, `[B, T, T]`."""
    length = q.shape[2]
    blocks = [functional.pad(f, (0, length - f.shape[2])) for _, f in forgetting_blocks(q, k, 0.5, rules)]
    return torch.cat(blocks, dim=1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A selective model in which no tensor is at its initial zeros."""
    torch.manual_seed(0)
    config = ModelConfig(50, 32, 2, 4, 2, 48, context=40, attention="selective", ngram_tables=2, ngram_rows=16)
    model = LanguageModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("rules", HAND_F)
def test_forgetting_equals_an_example_by_hand(rules: SelectionRules) -> None:
    """Positive scores of earlier queries add up, from the next query on, but for what the rules spare."""
    q, k = torch.tensor(HAND_Q).view(1, 1, 4, 1), torch.tensor(HAND_K).view(1, 1, 4, 1)
    [(_, forgetting)] = forgetting_blocks(q, k, 1.0, rules)
    assert forgetting[0].tolist() == HAND_F[rules]


def test_attention_equals_an_example_by_hand() -> None:
    """All heads lose F: the last of three queries weighs its keys by exp(ln 2 - ln 2), exp(0) and exp(0)."""
    two = math.log(2)
    q = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3, 1)
    q = torch.cat((q, torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 3, 1)), dim=1)
    k = torch.tensor([two, 0.0, 0.0]).view(1, 1, 3, 1)
    v = torch.tensor([9.0, 3.0, 0.0]).view(1, 1, 3, 1)
    y, _ = selective_attention(q, k, v, 1.0, SelectionRules(protect_first=False))
    # The selecting head's last query scores 0 everywhere: weights 1/2, 1, 1.
    assert y[0, 0, 2, 0].item() == pytest.approx((9 / 2 + 3) / 2.5)
    assert y[0, 1, 2, 0].item() == pytest.approx((9 + 3) / 3)


@pytest.mark.parametrize("mask_self", [False, True])
@pytest.mark.parametrize("protect_first", [False, True])
def test_forgetting_grows_from_zero_and_only_over_the_past(protect_first: bool, mask_self: bool) -> None:
    """F is 0 for the first query, at position 0 where it is protected, and never for a query's own token or later."""
    q, k, _ = random_heads(31, dtype=torch.float32)
    forgetting = whole_forgetting(q, k, SelectionRules(protect_first, mask_self))
    assert forgetting[:, 0].count_nonzero() == 0
    assert forgetting.triu().count_nonzero() == 0
    assert (forgetting[:, :, 0].count_nonzero() == 0) == protect_first
    assert forgetting.diff(dim=1).min() >= 0
    assert forgetting[:, -1, 1].min() > 0


def test_prediction_depends_on_earlier_tokens_only(model: LanguageModel) -> None:
    """Other tokens from position 20 on leave all logits before it as they are, bit for bit."""
    ids = torch.randint(1, 50, (2, 40), generator=torch.Generator().manual_seed(2))
    changed = ids.clone()
    changed[:, 20:] = 50 - ids[:, 20:]
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20], after[:, 20])


def test_disabled_selection_is_plain_attention() -> None:
    """The same code without F agrees with PyTorch's own attention."""
    q, k, v = random_heads(37)
    y, forgettings = selective_attention(q, k, v, 6**-0.5, SelectionRules(enabled=False))
    expected = functional.scaled_dot_product_attention(
        q, k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1), is_causal=True
    )
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)
    assert sum(int(block.count_nonzero()) for block in forgettings) == 0
    selective, _ = selective_attention(q, k, v, 6**-0.5, SelectionRules())
    assert (selective - expected).abs().max() > 0.1


@pytest.mark.parametrize("block", [1, 7, 16])
def test_blocks_of_queries_are_one(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a window is cut changes nothing but rounding, whether its length is a multiple of the block or not."""
    q, k, v = random_heads(48, dtype=torch.float64)
    expected, [forgetting] = selective_attention(q, k, v, 0.5, SelectionRules())
    monkeypatch.setattr(selection, "BLOCK", block)
    y, blocks = selective_attention(q, k, v, 0.5, SelectionRules())
    assert [f.shape[1] for f in blocks] == [min(block, 48 - first) for first in range(0, 48, block)]
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(whole_forgetting(q, k, SelectionRules()), forgetting, atol=1e-12, rtol=0)


def test_window_longer_than_a_block_is_one() -> None:
    """The block that is built in makes no difference either, for a length that is no multiple of it."""
    length = selection.BLOCK + 17
    q, k, v = random_heads(length)
    y, blocks = selective_attention(q, k, v, 0.5, SelectionRules())
    assert len(blocks) == 2
    scores = (q @ k.repeat_interleave(2, dim=1).mT) * 0.5
    selected = scores[:, 0].relu().tril(-1)
    selected[:, :, 0] = 0
    forgetting = functional.pad(selected.cumsum(dim=1), (0, 0, 1, 0))[:, :-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = (scores - forgetting[:, None]).masked_fill(future, -math.inf).softmax(dim=-1)
    torch.testing.assert_close(y, weights @ v.repeat_interleave(2, dim=1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mask_self", [False, True])
def test_gradients_are_those_of_finite_differences(mask_self: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through scores, F and blocks, under random gradients from above."""
    monkeypatch.setattr(selection, "BLOCK", 3)
    q, k, v = (x[:1, :, :7, :2].clone().requires_grad_() for x in random_heads(7, dtype=torch.float64))
    upstream = torch.randn(1, 4, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def output(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, forgettings = selective_attention(q, k, v, 0.7, SelectionRules(mask_self=mask_self))
        return (y * upstream).sum() + memory_penalty([forgettings], limit=0.5)

    assert torch.autograd.gradcheck(output, (q, k, v))


# Two layers, two windows of three tokens: F, and what is kept at i = 1, 2, 3 if 1 nat forgets a token.
PENALTY_F = torch.tensor(
    [
        [
            [[0, 0, 0], [0.5, 0, 0], [0.5, 2, 0]],  # 1, 1.5, 3 - 0.5 - 1 = 1.5
            [[0, 0, 0], [0, 0, 0], [0, 0, 0]],  # 1, 2, 3
        ],
        [
            [[0, 0, 0], [3, 0, 0], [3, 3, 0]],  # 1, 1, 1
            [[0, 0, 0], [0.25, 0, 0], [0.75, 1, 0]],  # 1, 1.75, 3 - 0.75 - 1 = 1.25
        ],
    ]
)


def test_memory_penalty_equals_an_example_by_hand() -> None:
    """The greatest count of each window and layer, its mean over both, as a share of the window's length."""
    layers = [[f[:, :1, :1], f[:, 1:]] for f in PENALTY_F]
    assert memory_penalty(layers).item() == pytest.approx((1.5 + 3 + 1 + 1.75) / 4 / 3)
    assert memory_penalty(layers, reduce="mean").item() == pytest.approx((4 + 6 + 3 + 4) / 3 / 4 / 3)
    # With a limit of 2 nats the kept are: 1, 1.75, 1.75; 1, 2, 3; 1, 1, 1; 1, 1.875, 2.125.
    assert memory_penalty(layers, limit=2.0).item() == pytest.approx((1.75 + 3 + 1 + 2.125) / 4 / 3)


def test_memory_penalty_is_that_of_the_paper_summed_over_layers() -> None:
    """For one window: the sum over layers of max over i of M, divided by layers times length."""
    for i_window in range(2):
        kept = [
            max(i + 1 - sum(min(f, 1.0) for f in row) for i, row in enumerate(layer[i_window].tolist()))
            for layer in PENALTY_F
        ]
        penalty = memory_penalty([[layer[i_window : i_window + 1]] for layer in PENALTY_F])
        assert penalty.item() == pytest.approx(sum(kept) / (2 * 3))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_memory_penalty_knows_no_order_of_windows_or_layers(reduce: str) -> None:
    """Both may be permuted."""
    expected = memory_penalty([[f] for f in PENALTY_F], reduce=reduce).item()
    assert memory_penalty([[f] for f in PENALTY_F.flip(0)], reduce=reduce).item() == pytest.approx(expected)
    assert memory_penalty([[f.flip(0)] for f in PENALTY_F], reduce=reduce).item() == pytest.approx(expected)


def penalised_loss(model: LanguageModel, targets: Tensor, memory_weight: float) -> Tensor:
    """Cross-entropy of windows `[B, T]` and the weighted penalty."""
    forgettings: list[list[Tensor]] = []
    loss = token_loss(lambda ids: model(ids, forgettings), window_inputs(targets), targets)
    return loss + memory_weight * memory_penalty(forgettings)


def test_loss_with_memory_weight_0_is_cross_entropy(model: LanguageModel) -> None:
    """The same number and the same gradients, bit for bit, and another weight gives more."""
    targets = torch.randint(1, 50, (2, 40), generator=torch.Generator().manual_seed(3))
    plain = token_loss(model, window_inputs(targets), targets)
    loss = penalised_loss(model, targets, 0.0)
    assert loss.item() == plain.item()
    weights = list(model.layers.parameters())
    gradients, expected = torch.autograd.grad(loss, weights), torch.autograd.grad(plain, weights)
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    assert penalised_loss(model, targets, 0.5).item() > plain.item()


def test_memory_weight_makes_a_model_keep_fewer_tokens() -> None:
    """After the same short training, M is lower with the penalty than without."""
    kept = {weight: _kept_after_training(weight) for weight in (0.0, 1.0)}
    assert kept[1.0] < 0.9 * kept[0.0]


def _kept_after_training(memory_weight: float) -> float:
    """The mean M, as a share of the window, of a tiny model that has learnt to repeat a run of tokens."""
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig(16, 32, 2, 2, 2, 32, context=24, attention="selective"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        ids = torch.randint(1, 16, (8, 8)).repeat(1, 3)
        optimiser.zero_grad()
        penalised_loss(model, ids, memory_weight).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    forgettings: list[list[Tensor]] = []
    with torch.no_grad():
        model(ids, forgettings)
        return memory_penalty(forgettings, reduce="mean").item()
