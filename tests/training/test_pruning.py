# ruff: noqa: TID253
from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training import selection
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.pruning import Mode, PrunedDecoder, PrunedModel, Pruning, chosen_anew, left_by_eviction

N_LAYERS = 3
CONTEXT = 48


def make_model(attention: str, dtype: torch.dtype = torch.float64, **options: object) -> LanguageModel:
    """A model with n-gram tables and no tensor at its initial zeros, whose F grows to some nats."""
    torch.manual_seed(4)
    config = ModelConfig(
        vocab_size=40, width=32, n_layers=N_LAYERS, n_heads=4, n_kv_heads=2, ffn_width=48, context=CONTEXT,
        attention=attention, ngram_tables=2, ngram_rows=64, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    model = LanguageModel(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def windows(n: int = 3) -> Tensor:
    """Random windows of the whole context."""
    return torch.randint(1, 40, (n, CONTEXT), generator=torch.Generator().manual_seed(6))


def pruned(model: LanguageModel, pruning: Pruning) -> tuple[Tensor, Tensor]:
    """Logits and the sets of all layers, `[L, B, T, T]`, of the masked forward."""
    masks: list[Tensor] = []
    with torch.no_grad():
        logits = PrunedModel(model, pruning)(windows(), masks)
    return logits, torch.stack(masks)


def rank_rows(*rows: list[float]) -> Tensor:
    """Ranks of the queries of one window."""
    return torch.tensor([rows], dtype=torch.float32)


def seen_rows(masks: Tensor) -> list[list[int]]:
    """The positions that each query of one window sees."""
    return [row.nonzero().flatten().tolist() for row in masks[0]]


# F of five queries, written by hand; what is right of the diagonal counts for nothing.
HAND_F = rank_rows(
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 1, 1, 0, 0],
    [3, 1, 2, 0, 0],
)


def test_choosing_anew_keeps_the_least_forgotten_and_of_equals_the_earlier() -> None:
    """Budgets 3, 2 and 1 on ranks by hand; at budget 3 query 3 chooses token 1 of two equals."""
    assert seen_rows(chosen_anew(HAND_F, 0, 3, math.inf)) == [[0], [0, 1], [0, 1, 2], [0, 1, 3], [1, 3, 4]]
    assert seen_rows(chosen_anew(HAND_F, 0, 2, math.inf)) == [[0], [0, 1], [0, 2], [0, 3], [3, 4]]
    assert seen_rows(chosen_anew(HAND_F, 0, 1, math.inf)) == [[0], [1], [2], [3], [4]]


def test_eviction_drops_the_most_forgotten_and_of_equals_the_later_for_good() -> None:
    """Budget 3 on ranks by hand: query 3 drops token 2, the later of two equals, and it never returns."""
    nobody = torch.zeros(1, 5, dtype=torch.bool)
    assert seen_rows(left_by_eviction(HAND_F, 0, 3, math.inf, nobody)) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 3],
        [1, 3, 4],
    ]
    assert seen_rows(left_by_eviction(HAND_F, 0, 2, math.inf, nobody)) == [[0], [0, 1], [0, 2], [0, 3], [3, 4]]
    # Token 1 would be the best for query 4, but query 2 dropped it.
    ranks = rank_rows([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 2, 0, 0, 0], [4, 2, 3, 0, 0], [5, 2, 4, 3, 0])
    assert seen_rows(left_by_eviction(ranks, 0, 2, math.inf, nobody))[4] == [3, 4]
    assert seen_rows(chosen_anew(ranks, 0, 2, math.inf))[4] == [1, 4]


def test_cutoff_drops_what_has_reached_it() -> None:
    """In both modes, with a budget or without; a query's own token always stays."""
    nobody = torch.zeros(1, 5, dtype=torch.bool)
    expected = [[0], [0, 1], [0, 2], [0, 3], [3, 4]]
    assert seen_rows(chosen_anew(HAND_F, 0, 0, 1.0)) == expected
    assert seen_rows(left_by_eviction(HAND_F, 0, 0, 1.0, nobody)) == expected
    assert seen_rows(left_by_eviction(HAND_F, 0, 3, 2.0, nobody)) == [[0], [0, 1], [0, 1, 2], [0, 1, 3], [1, 3, 4]]


@pytest.mark.parametrize("attention", ["selective", "plain"])
@pytest.mark.parametrize("mode", ["recompute", "evict", "recency"])
def test_budget_of_the_whole_window_prunes_nothing(attention: str, mode: Mode) -> None:
    """K = T, K > T and no budget are the model itself, bit for bit if it is selective."""
    model = make_model(attention, torch.float32)
    with torch.no_grad():
        expected = model(windows())
    for budgets in ((), (CONTEXT,) * N_LAYERS, (0, CONTEXT + 5, CONTEXT)):
        logits, _ = pruned(model, Pruning(budgets, mode))
        if attention == "selective":
            assert torch.equal(logits, expected)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["recompute", "evict", "recency"])
def test_each_query_sees_exactly_its_budget_and_itself(mode: Mode) -> None:
    """min(K, t + 1) tokens, none of the future, by layer."""
    budgets = (1, 7, 0)
    _, masks = pruned(make_model("selective"), Pruning(budgets, mode))
    assert masks.triu(1).count_nonzero() == 0
    assert masks.diagonal(dim1=2, dim2=3).all()
    for mask, budget in zip(masks, budgets, strict=True):
        expected = [min(budget or CONTEXT, t + 1) for t in range(CONTEXT)]
        assert mask.sum(dim=-1).tolist() == [expected] * 3


def test_evicted_tokens_never_return_and_recomputed_ones_do() -> None:
    """The two modes differ on the same model, and pruning changes what it predicts."""
    model = make_model("selective")
    evicted_logits, evicted = pruned(model, Pruning((6,) * N_LAYERS, "evict"))
    logits, recomputed = pruned(model, Pruning((6,) * N_LAYERS, "recompute"))
    assert returns(evicted) == 0
    assert returns(recomputed) > 0
    assert (evicted_logits - logits).abs().max() > 1e-3


def returns(masks: Tensor) -> int:
    """How often a query sees a token that the query before it did not, its own aside."""
    return int((masks[..., 1:, :] & ~masks[..., :-1, :]).tril(0).sum())


def test_protected_first_position_survives_every_budget_above_one() -> None:
    """Its F is 0 and of equals the earlier stays."""
    for mode in ("recompute", "evict", "recency"):
        _, masks = pruned(make_model("selective"), Pruning((2, 5, 9), mode))
        assert masks[..., 0].all()


def test_recency_keeps_the_latest_and_the_protected_position() -> None:
    """On a plain model: budget 4 is position 0 and three latest, or four latest where nothing is protected."""
    _, masks = pruned(make_model("plain"), Pruning((4,) * N_LAYERS, "recency"))
    assert seen_rows(masks[1])[20] == [0, 18, 19, 20]
    _, masks = pruned(make_model("plain", protect_first=False), Pruning((4,) * N_LAYERS, "recency"))
    assert seen_rows(masks[1])[20] == [17, 18, 19, 20]


@pytest.mark.parametrize("mode", ["recompute", "evict", "recency"])
def test_blocks_of_queries_make_no_difference(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets are carried from block to block."""
    model = make_model("selective")
    expected, expected_masks = pruned(model, Pruning((5, 9, 0), mode, 2.0 if mode != "recency" else math.inf))
    monkeypatch.setattr(selection, "BLOCK", 11)
    logits, masks = pruned(model, Pruning((5, 9, 0), mode, 2.0 if mode != "recency" else math.inf))
    assert torch.equal(masks, expected_masks)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


CASES = [
    pytest.param("selective", Pruning((), "evict"), {}, id="no-budget"),
    pytest.param("selective", Pruning((1, 2, 3), "evict"), {}, id="smallest-budgets"),
    pytest.param("selective", Pruning((13, 0, 6), "evict"), {}, id="budgets"),
    pytest.param("selective", Pruning((13, 100, 6), "evict"), {"mask_self": True}, id="mask-self"),
    pytest.param("selective", Pruning((13, 0, 6), "evict"), {"protect_first": False}, id="unprotected"),
    pytest.param("selective", Pruning((), "evict", 0.5), {}, id="cutoff"),
    pytest.param("selective", Pruning((20, 0, 6), "evict", 1.5), {}, id="cutoff-and-budgets"),
    pytest.param("selective", Pruning((5, 0, 6), "recency"), {}, id="selective-by-recency"),
    pytest.param("plain", Pruning((5, 0, 1), "recency"), {}, id="plain-by-recency"),
    pytest.param("plain", Pruning((5, 0, 2), "recency"), {"protect_first": False}, id="plain-unprotected"),
]


@pytest.mark.parametrize(("attention", "pruning", "options"), CASES)
def test_decoder_equals_the_masked_window(attention: str, pruning: Pruning, options: dict[str, object]) -> None:
    """The same sets exactly and the same logits, in double precision so that rounding decides no rank."""
    model = make_model(attention, torch.float64, **options)
    logits, masks = pruned(model, pruning)
    decoder = PrunedDecoder(model, pruning, n_windows=3)
    for t in range(CONTEXT):
        torch.testing.assert_close(decoder.step(windows()[:, t]), logits[:, t], atol=1e-9, rtol=0)
        for layer, cache in enumerate(decoder.caches):
            for i_window in range(3):
                held = sorted(place for place in cache.positions[i_window].tolist() if place >= 0)
                assert held == masks[layer, i_window, t].nonzero().flatten().tolist()


def test_decoder_equals_the_masked_window_in_single_precision() -> None:
    """To 1e-4, with the same sets at the end."""
    model = make_model("selective", torch.float32)
    pruning = Pruning((13, 0, 6), "evict", 3.0)
    logits, masks = pruned(model, pruning)
    decoder = PrunedDecoder(model, pruning, n_windows=3)
    decoded = torch.stack([decoder.step(ids) for ids in windows().T], dim=1)
    torch.testing.assert_close(decoded, logits, atol=1e-4, rtol=0)
    for layer, cache in enumerate(decoder.caches):
        held = sorted(place for place in cache.positions[0].tolist() if place >= 0)
        assert held == masks[layer, 0, -1].nonzero().flatten().tolist()


def test_decoder_holds_no_more_entries_than_the_budgets() -> None:
    """Memory is what the budgets say; 0 and more than the context mean the context."""
    decoder = PrunedDecoder(make_model("selective"), Pruning((5, 0, 1000)), n_windows=2)
    assert [cache.keys.shape[2] for cache in decoder.caches] == [5, CONTEXT, CONTEXT]
    assert decoder.caches[0].values.shape == (2, 2, 5, 8)


def test_decoder_reads_no_further_than_the_context() -> None:
    """Positions beyond it have no angles."""
    decoder = PrunedDecoder(make_model("selective"), Pruning((2,) * N_LAYERS))
    for _ in range(CONTEXT):
        decoder.step(torch.tensor([1]))
    with pytest.raises(ValueError, match="at most 48 tokens"):
        decoder.step(torch.tensor([1]))


def test_selection_is_the_raw_score_of_keys_whatever_the_selecting_head_sees() -> None:
    """F of the keys that eviction leaves in the first layer is that of the unpruned model."""
    model = make_model("selective")
    forgettings: list[list[Tensor]] = []
    with torch.no_grad():
        model(windows(), forgettings)
    decoder = PrunedDecoder(model, Pruning((6,) * N_LAYERS), n_windows=3)
    cache = decoder.caches[0]
    for t in range(CONTEXT - 1):
        decoder.step(windows()[:, t])
        expected = forgettings[0][0][:, t + 1].gather(1, cache.positions.clamp(min=0))
        held = cache.positions >= 0
        torch.testing.assert_close(cache.forgetting[held], expected[held], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pruning((3,), "forget"), "expected mode"),  # type: ignore[arg-type]
        (lambda: Pruning((3, -1)), "expected budgets of 0 or more"),
        (lambda: Pruning(cutoff=0.0), "expected a cutoff above 0"),
        (lambda: Pruning(cutoff=math.nan), "expected a cutoff above 0"),
        (lambda: Pruning((3,), "recency", 1.0), "expected no cutoff"),
        (lambda: PrunedModel(make_model("plain"), Pruning((3, 4))), "expected 3 budgets or none, found 2"),
        (lambda: PrunedDecoder(make_model("plain"), Pruning((3,) * 3, "recompute")), "expected mode evict or recency"),
    ],
)
def test_pruning_that_cannot_be_is_refused(make: object, message: str) -> None:
    """Each with what was expected and what was found."""
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_ranking_agrees_with_sorting_by_hand_on_random_ties() -> None:
    """Both modes against Python's sort, with few different ranks."""
    generator = torch.Generator().manual_seed(8)
    ranks = torch.randint(0, 3, (2, 20, 20), generator=generator).cumsum(dim=1).float()
    nobody = torch.zeros(2, 20, dtype=torch.bool)
    for budget, cutoff in itertools.product((1, 2, 5), (9.0, math.inf)):
        anew = chosen_anew(ranks, 0, budget, cutoff)
        left = left_by_eviction(ranks, 0, budget, cutoff, nobody)
        for i_window in range(2):
            alive: list[int] = []
            for t, row in enumerate(ranks[i_window].tolist()):
                best = sorted((k for k in range(t) if row[k] < cutoff), key=lambda k: (row[k], k))
                assert anew[i_window, t].nonzero().flatten().tolist() == sorted([*best[: budget - 1], t])
                alive = sorted((k for k in alive if row[k] < cutoff), key=lambda k: (row[k], k))[: budget - 1]
                alive.append(t)
                assert left[i_window, t].nonzero().flatten().tolist() == sorted(alive)
