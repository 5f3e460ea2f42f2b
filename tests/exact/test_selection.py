"""Selective attention with a pruned cache, in whole models of every shape, against masks over the whole window."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.exact.backend import load_backend
from llmzip.exact.matrix import QuantisedMatrix, quantise_matrix
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.exact.transformer import Parameters, Segment, Transformer

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

BACKENDS = ["reference", "cpu"]
WINDOW = 29
RULES = [(first, own) for first in (False, True) for own in (False, True)]

# Each differs from `selective_spec` in what its id says.
CASES: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    **{f"heads-{h}-of-{hk}": {"n_heads": h, "n_kv_heads": hk} for h, hk in ((1, 1), (2, 1), (4, 2), (3, 1), (6, 2))},
    **{f"head-width-{k}": {"head_width": k, "rotary_width": k, "attention_scale": k**-0.5} for k in (8, 16, 20, 64)},
    **{f"cutoff-{cutoff}": {"selection": Selection(cutoff)} for cutoff in (1, 8000, 16384, 2**19)},
    **{
        f"budgets-{'-'.join(map(str, budgets))}": {"selection": Selection(3000, budgets)}
        for budgets in ((0, 0), (5, 5), (0, 4), (16, 17), (1, 1), (2, 60), (60, 60))
    },
    **{
        f"cutoff-{cutoff}-budget-{budget}-{'protected' if first else 'open'}-{'own' if own else 'others'}": {
            "selection": Selection(cutoff, (budget, budget), first, own)
        }
        for cutoff, budget in ((1, 0), (1, 6), (2000, 0), (2**19, 1), (2**19, 6))
        for first, own in RULES
    },
    "gated-silu": {"mlp": "gated", "activation": "silu"},
    "gated-relu2": {"mlp": "gated", "activation": "relu2"},
    "plain-silu": {"mlp": "plain", "activation": "silu"},
    **{f"ngrams-{n}": {"ngrams": Ngrams(n, 32)} for n in (1, 2, 3)},
}


@pytest.fixture
def selective_spec(sizes: dict[str, Any]) -> ModelSpec:
    """Two layers that forget in windows of `WINDOW` tokens, the first with a budget."""
    shape = {"family": "selective", "mlp": "plain", "activation": "relu2", "selection": Selection(3000, (9, 0))}
    return ModelSpec(**(sizes | shape))


def _tokens(n: int, seed: int = 0) -> Tokens:
    return ((np.arange(n) * 7919 + seed * 131) % 83).astype(np.int32)


def _hidden(spec: ModelSpec, parameters: Parameters, tokens: Tokens, backend: str) -> Floats:
    model = Transformer(spec, parameters, load_backend(backend))
    return model.hidden(model.new_cache(1, len(tokens)), [Segment(0, 0, tokens)])


def _equal(found: Floats, expected: Floats) -> bool:
    return np.array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("case", CASES)
def test_pruned_cache_is_the_masked_window(
    case: str, selective_spec: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """Both backends, in a prefill and by steps, have the bits of masks and of F summed over the whole window."""
    spec = dataclasses.replace(selective_spec, **CASES[case])
    parameters, tokens = make_parameters(spec), _tokens(WINDOW)
    expected, layers = masked_forward.masked_hidden(spec, parameters, tokens)
    assert np.isfinite(expected).all()
    for backend in BACKENDS:
        model = Transformer(spec, parameters, load_backend(backend))
        assert _equal(_hidden(spec, parameters, tokens, backend), expected)
        cache = model.new_cache(1, WINDOW + 3)
        steps = [model.hidden(cache, [Segment(0, i, tokens[i : i + 1])]) for i in range(WINDOW)]
        assert _equal(np.concatenate(steps), expected)
    for i, forgetting in enumerate(layers):
        assert spec.selection is not None
        budget = spec.selection.budget(i) or WINDOW
        assert max(len(seen) for seen in forgetting.seen) <= budget
        if spec.selection.protect_first and budget > 1:
            assert all(0 in seen and row[0] == 0 for seen, row in zip(forgetting.seen, forgetting.f, strict=True))


def test_both_reasons_to_forget_occur(
    selective_spec: ModelSpec, make_parameters: Any, masked_forward: ModuleType
) -> None:
    """The comparison above is no comparison of windows that nothing is missing from."""
    spec = selective_spec
    _, (first, second) = masked_forward.masked_hidden(spec, make_parameters(spec), _tokens(WINDOW))
    assert spec.selection is not None
    for forgetting in (first, second):
        gone = {(q, k) for q in range(WINDOW) for k in range(q) if k not in forgetting.seen[q]}
        by_cutoff = {(q, k) for q, k in gone if forgetting.f[q][k] >= spec.selection.cutoff}
        assert by_cutoff
        assert (gone != by_cutoff) == (forgetting is first)


@given(data=st.data())
def test_any_small_model_is_the_masked_window(
    data: st.DataObject, sizes: dict[str, Any], make_parameters: Any, masked_forward: ModuleType
) -> None:
    """Random shapes, rules and tokens, one layer."""
    n_kv_heads = data.draw(st.integers(1, 2), "key heads")
    width = 2 * data.draw(st.integers(1, 9), "half the head width")
    cutoff = data.draw(st.sampled_from([1, 50, 700, 2000, 2**19]), "cutoff")
    budgets = data.draw(st.sampled_from([(), (0,), (1,), (2,), (3,), (7,), (40,)]), "budgets")
    shape = {
        "family": "random",
        "n_layers": 1,
        "n_kv_heads": n_kv_heads,
        "n_heads": n_kv_heads * data.draw(st.integers(1, 3), "group"),
        "head_width": width,
        "rotary_width": width,
        "attention_scale": width**-0.5,
        "selection": Selection(cutoff, budgets, data.draw(st.booleans(), "first"), data.draw(st.booleans(), "own")),
        "ngrams": data.draw(st.sampled_from([None, Ngrams(1, 2), Ngrams(3, 16)]), "ngrams"),
    }
    spec = ModelSpec(**(sizes | shape))
    tokens = np.array(data.draw(st.lists(st.integers(0, 82), min_size=1, max_size=21), "tokens"), np.int32)
    parameters = make_parameters(spec)
    expected, _ = masked_forward.masked_hidden(spec, parameters, tokens)
    for backend in BACKENDS:
        assert _equal(_hidden(spec, parameters, tokens, backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("protect_first", "mask_self"), RULES)
def test_what_a_query_selects_acts_from_the_next_query_on(
    protect_first: bool, mask_self: bool, backend: str, sizes: dict[str, Any], make_parameters: Any
) -> None:
    """Rows before the first that anything can be forgotten for are those of plain attention.

    The query at 0 can select itself alone, the one at 1 positions 0 and 1; without the protected and the own
    ones that leaves something to forget from row 1, 2 or 3 on.
    """
    first = {(False, True): 1, (False, False): 2, (True, True): 2, (True, False): 3}[protect_first, mask_self]
    spec = ModelSpec(**(sizes | {"family": "made", "n_layers": 1}))
    parameters, tokens = _with_positive_scores(make_parameters(spec)), _tokens(6)
    plain = _hidden(spec, parameters, tokens, backend)
    for cutoff in (1, 2**19):
        rules = Selection(cutoff, (), protect_first, mask_self)
        selective = _hidden(dataclasses.replace(spec, selection=rules), parameters, tokens, backend)
        assert _equal(selective[:first], plain[:first])
        assert not _equal(selective[first : first + 1], plain[first : first + 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_head_that_selects_nothing_leaves_plain_attention(
    backend: str, sizes: dict[str, Any], make_parameters: Any
) -> None:
    """With queries of zeros in head 0 of each layer, even at the smallest cutoff."""
    spec = ModelSpec(**(sizes | {"family": "made"}))
    parameters = make_parameters(spec)
    for layer in range(spec.n_layers):
        _change(parameters, f"layers.{layer}.q", slice(spec.head_width), 0)
    selective = dataclasses.replace(spec, selection=Selection(1, (), False, True))
    expected = _hidden(spec, parameters, _tokens(WINDOW), backend)
    assert _equal(_hidden(selective, parameters, _tokens(WINDOW), backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_budget_of_one_is_a_local_window_of_one(backend: str, sizes: dict[str, Any], make_parameters: Any) -> None:
    """Each query sees its own key alone, whatever the rules."""
    local = ModelSpec(**(sizes | {"family": "made", "local_window": 1, "local_layers": (True, True)}))
    parameters = make_parameters(local)
    expected = _hidden(local, parameters, _tokens(WINDOW), backend)
    for protect_first, mask_self in RULES:
        selection = Selection(1000, (1, 1), protect_first, mask_self)
        selective = ModelSpec(**(sizes | {"family": "made", "selection": selection}))
        assert _equal(_hidden(selective, parameters, _tokens(WINDOW), backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("budget", [1, 4, 16, 20])
def test_rows_below_the_budget_are_those_without_one(
    budget: int, backend: str, sizes: dict[str, Any], make_parameters: Any
) -> None:
    """The query at position `budget` is the first that sees one key less."""
    without = ModelSpec(**(sizes | {"family": "made", "n_layers": 1, "selection": Selection(2**19)}))
    within = dataclasses.replace(without, selection=Selection(2**19, (budget,)))
    parameters = make_parameters(without)
    expected, found = (_hidden(spec, parameters, _tokens(WINDOW), backend) for spec in (without, within))
    assert _equal(found[:budget], expected[:budget])
    assert not _equal(found[budget : budget + 1], expected[budget : budget + 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lanes_in_mixtures_have_the_bits_that_they_have_alone(
    backend: str, selective_spec: ModelSpec, make_parameters: Any
) -> None:
    """Prefills, steps and pieces of four lanes in any order, and a second window in a lane before the others end."""
    model = Transformer(selective_spec, make_parameters(selective_spec), load_backend(backend))
    texts = [_tokens(n, seed) for seed, n in enumerate((WINDOW, 11, 23, 17, 19))]
    alone = [model.hidden(model.new_cache(1, WINDOW), [Segment(0, 0, text)]) for text in texts]
    # Of each call: lane, text, first token, end. Text 4 takes lane 1 after text 1.
    calls = [
        [(0, 0, 0, 9), (1, 1, 0, 11)],
        [(2, 2, 0, 1), (0, 0, 9, 10), (3, 3, 0, 16)],
        [(1, 4, 0, 8), (3, 3, 16, 17), (2, 2, 1, 22), (0, 0, 10, 11)],
        [(0, 0, 11, WINDOW), (1, 4, 8, 19), (2, 2, 22, 23)],
    ]
    cache = model.new_cache(4, WINDOW)
    for call in calls:
        found = model.hidden(cache, [Segment(lane, first, texts[text][first:end]) for lane, text, first, end in call])
        assert _equal(found, np.concatenate([alone[text][first:end] for _, text, first, end in call]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("position", [1, 11, 13, 20])
def test_a_lane_that_does_not_continue_is_refused(
    position: int, backend: str, selective_spec: ModelSpec, make_parameters: Any
) -> None:
    """What was forgotten cannot be taken back; the refusal changes no lane."""
    model = Transformer(selective_spec, make_parameters(selective_spec), load_backend(backend))
    cache, tokens = model.new_cache(2, WINDOW), _tokens(WINDOW)
    model.hidden(cache, [Segment(0, 0, tokens[:5]), Segment(1, 0, tokens[:12])])
    with pytest.raises(ValueError, match=f"expected positions 0 or .*12.*, found .*{position}"):
        model.hidden(cache, [Segment(0, 5, tokens[5:6]), Segment(1, position, tokens[:1])])
    found = model.hidden(cache, [Segment(1, 12, tokens[12:]), Segment(0, 5, tokens[5:])])
    whole = _hidden(selective_spec, make_parameters(selective_spec), tokens, backend)
    assert _equal(found, np.concatenate([whole[12:], whole[5:]]))


def test_a_full_layer_gives_up_the_latest_of_equals(masked_forward: ModuleType) -> None:
    """Masks by hand: with nothing selected, the first keys stay; what is forgotten more goes before them."""
    nothing = [[0] * (q + 1) for q in range(6)]
    assert masked_forward.forget_by_sets(nothing, Selection(9), 3).seen == [
        {0}, {0, 1}, {0, 1, 2}, {0, 1, 3}, {0, 1, 4}, {0, 1, 5}
    ]  # fmt: skip
    selected = [list(row) for row in nothing]
    selected[2] = [7, 4, 7]
    selected[4] = [7, 5, 7, 7, 7]
    forgetting = masked_forward.forget_by_sets(selected, Selection(9), 4)
    assert forgetting.f[5] == [0, 9, 7, 7, 0, 0]
    assert forgetting.seen == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 2, 3, 4}, {0, 2, 4, 5}]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lane_holds_no_more_than_its_capacity(backend: str, selective_spec: ModelSpec, make_parameters: Any) -> None:
    """One token too many is refused rather than put in place of another."""
    model = Transformer(selective_spec, make_parameters(selective_spec), load_backend(backend))
    cache = model.new_cache(1, 16)
    model.hidden(cache, [Segment(0, 0, _tokens(16))])
    with pytest.raises(ValueError, match=r"expected at most 16 positions, found .*17"):
        model.hidden(cache, [Segment(0, 16, _tokens(1))])


def _change(parameters: Parameters, name: str, rows: slice, value: int) -> None:
    """Set rows of a matrix, in place."""
    parameters.matrices[name].q[rows] = value


def _with_positive_scores(parameters: Parameters) -> Parameters:
    """The first key head is the first query head, and tokens are alike: head 0 selects whatever it sees."""
    matrices = dict(parameters.matrices)
    embed, queries, keys = matrices["embed"], matrices["layers.0.q"], matrices["layers.0.k"]
    n = len(keys.q)
    alike = quantise_matrix(embed.q * embed.scale[:, None] + np.float32(0.5))
    matrices["embed"] = QuantisedMatrix(*alike, None, embed.limit)
    matrices["layers.0.k"] = QuantisedMatrix(queries.q[:n], queries.scale[:n], None, keys.limit)
    return Parameters(matrices, parameters.vectors)
