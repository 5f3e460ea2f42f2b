# ruff: noqa: TID253
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from llmzip.errors import ConfigError
from llmzip_training.conditioned import ConditionedModel, token_nats
from llmzip_training.frozen import FrozenModel
from llmzip_training.model import ModelConfig
from llmzip_training.ngrams import hash_runs

PLAIN = ModelConfig(50, 16, 2, 2, 1, 24, 40)
SELECTIVE = ModelConfig(
    50, 16, 2, 2, 1, 24, 40, "plain", "relu2", "selective", ngram_tables=2, ngram_rows=16
)  # fmt: skip


def _model(config: ModelConfig) -> ConditionedModel:
    torch.manual_seed(0)
    model = FrozenModel(config, 0)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return ConditionedModel(model)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _tokens(*shape: int) -> Tensor:
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(2))


def _ids() -> Tensor:
    return torch.cat((torch.zeros(3, 1, dtype=torch.int64), _tokens(3, 11)), dim=1)


@pytest.mark.parametrize("config", [PLAIN, SELECTIVE], ids=["plain", "selective"])
def test_without_a_conditioner_it_is_the_model(config: ModelConfig) -> None:
    """Bit for bit; no rows and rows of zeros are no conditioner."""
    model, ids = _model(config), _ids()
    expected = model.model(ids)
    for conditioner in ((None, None), (torch.zeros(0, 16), torch.zeros(0, 16)), (None, torch.zeros(3, 16))):
        assert torch.equal(model(ids, *conditioner), expected)


@pytest.mark.parametrize("config", [PLAIN, SELECTIVE], ids=["plain", "selective"])
def test_conditioners_of_a_batch_act_each_on_its_own_window(config: ModelConfig) -> None:
    """As they do one by one, and a shared one as on each."""
    model, ids = _model(config), _ids()
    prefixes, shifts = _random(3, 4, 16), _random(3, 3, 16)
    found = model(ids, prefixes, shifts)
    for i in range(3):
        torch.testing.assert_close(found[i], model(ids[i : i + 1], prefixes[i], shifts[i])[0], rtol=0, atol=1e-5)


def test_prompt_of_embeddings_is_a_prompt_of_tokens() -> None:
    """Where no n-gram tells them apart, at the same positions."""
    model, ids, prompt = _model(PLAIN), _ids(), _tokens(5)
    joined = torch.cat((ids[:, :1], prompt.expand(3, -1), ids[:, 1:]), dim=1)
    found = model(ids, model.model.embed_tokens(prompt))
    torch.testing.assert_close(found, model.model(joined)[:, 5:], rtol=0, atol=1e-5)


def test_prompt_is_bos_to_ngrams() -> None:
    """A row gets the n-gram rows of BOS after BOS, and the first token of the text follows BOS."""
    model, ids = _model(SELECTIVE), _ids()
    joined = torch.cat((torch.zeros(3, 4, dtype=torch.int64), ids), dim=1)
    rows = hash_runs(joined, 2, 16)
    assert torch.equal(rows[:, 5], hash_runs(ids, 2, 16)[:, 1])
    bos_row = model.model.embed_tokens(torch.tensor(0))
    torch.testing.assert_close(model(ids, bos_row.expand(4, -1)), model.model(joined)[:, 4:], rtol=0, atol=1e-5)


def test_shifts_are_added_before_each_layer_and_the_norm() -> None:
    """At all positions, those of BOS and of the prompt included."""
    model, ids, shifts = _model(PLAIN), _ids(), _random(3, 16)
    x = model.model.embed(ids)
    for i, layer in enumerate(model.model.layers):
        x = layer(x + shifts[i], model.model.cos[:12], model.model.sin[:12], None)
    assert torch.equal(model(ids, None, shifts), model.model.predict(x + shifts[2]))


@pytest.mark.parametrize("config", [PLAIN, SELECTIVE], ids=["plain", "selective"])
def test_nats_and_their_gradients_are_those_of_the_logits(config: ModelConfig) -> None:
    """The loss that never has all logits at once agrees with the one that has; BOS as a target costs nothing."""
    model, targets = _model(config), _tokens(3, 12)
    targets[2, 7:] = 0
    ids = torch.cat((torch.zeros(3, 1, dtype=torch.int64), targets[:, :-1]), dim=1)
    rows = [_random(3, 4, 16).requires_grad_(), _random(3, 16).requires_grad_()]
    logits = model(ids, *rows).flatten(0, 1)
    expected = functional.cross_entropy(logits, targets.flatten(), ignore_index=0, reduction="none").view(3, 12)
    found = token_nats(model, targets, *rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not found[2, 7:].any()
    weights = _random(3, 12)
    slopes = [torch.autograd.grad((nats * weights).sum(), rows, retain_graph=True) for nats in (found, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_gradients_flow_into_the_conditioner_alone() -> None:
    """Every row gets one, no weight does."""
    model, prefix, shifts = _model(SELECTIVE), _random(4, 16).requires_grad_(), torch.zeros(3, 16, requires_grad=True)
    token_nats(model, _tokens(2, 9), prefix, shifts).sum().backward()  # type: ignore[no-untyped-call]
    for rows in (prefix, shifts):
        assert rows.grad is not None
        assert rows.grad.abs().amin(dim=-1).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("prefix", "shifts"),
    [((4, 15), (3, 16)), ((4, 16), (2, 16)), ((4, 16), (3, 17)), ((29, 16), (3, 16)), ((1, 1, 4, 16), (3, 16))],
    ids=["narrow", "few", "wide", "long", "dimensions"],
)
def test_conditioners_that_do_not_fit_are_refused(prefix: tuple[int, ...], shifts: tuple[int, ...]) -> None:
    """By what was expected and found."""
    with pytest.raises(ConfigError, match=r"expected .* found"):
        _model(PLAIN)(_ids(), torch.zeros(prefix), torch.zeros(shifts))
