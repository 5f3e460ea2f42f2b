# ruff: noqa: TID253
from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training.evaluate import token_loss
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.surgery import Init, Place, add_head
from llmzip_training.windows import window_inputs

D, L, H, K = 24, 2, 3, 8
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def make_model(attention: Literal["plain", "selective"], n_kv_heads: int = H) -> LanguageModel:
    """A model with no tensor at its initial zeros."""
    torch.manual_seed(3)
    model = LanguageModel(ModelConfig(40, D, L, H, n_kv_heads, 32, context=20, attention=attention))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def windows() -> Tensor:
    """Random targets."""
    return torch.randint(1, 40, (4, 20), generator=torch.Generator().manual_seed(7))


def logits(model: LanguageModel) -> Tensor:
    """What a model predicts for the windows."""
    with torch.no_grad():
        found: Tensor = model(window_inputs(windows()))
    return found


def head_parts(model: LanguageModel, layer: int, head: int) -> dict[str, Tensor]:
    """The rows of Q, K and V and the columns of O that belong to a head."""
    part = slice(head * K, head * K + K)
    tensors = model.state_dict()
    found = {name: tensors[f"layers.{layer}.self_attn.{name}.weight"] for name in PROJECTIONS}
    return {name: (tensor[:, part] if name == "o_proj" else tensor[part]).clone() for name, tensor in found.items()}


SAME_WITH_KO_ZERO: list[tuple[Literal["plain", "selective"], Literal["plain", "selective"], Place]] = [
    ("plain", "plain", "start"),
    ("plain", "plain", "end"),
    ("plain", "selective", "start"),
    ("selective", "selective", "end"),
]


@pytest.mark.parametrize(("before", "after", "place"), SAME_WITH_KO_ZERO)
def test_ko_zero_leaves_the_logits(
    before: Literal["plain", "selective"], after: Literal["plain", "selective"], place: Place
) -> None:
    """Plain or selective, and for a plain model that becomes selective."""
    model = make_model(before)
    grown = add_head(model, place, "ko_zero", attention=after)
    torch.testing.assert_close(logits(grown), logits(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("place", ["start", "end"])
def test_o_zero_leaves_the_logits_of_plain_attention_only(place: Place) -> None:
    """Selective attention is disturbed by a head that selects at random."""
    model = make_model("plain")
    torch.testing.assert_close(logits(add_head(model, place, "o_zero")), logits(model), atol=1e-5, rtol=0)
    selective = add_head(model, "start", "o_zero", attention="selective")
    assert (logits(selective) - logits(model)).abs().max() > 1e-2


@pytest.mark.parametrize("init", ["normal", "o_rescaled", "k_zero"])
def test_other_inits_disturb_the_model(init: Init) -> None:
    """A rescaled output disturbs it less than a normal one."""
    model = make_model("plain")
    difference = (logits(add_head(model, "start", init)) - logits(model)).abs().max()
    assert difference > 1e-2
    if init == "o_rescaled":
        assert difference < 0.5 * (logits(add_head(model, "start", "normal")) - logits(model)).abs().max()


@pytest.mark.parametrize("init", ["k_zero", "ko_zero"])
def test_head_without_keys_selects_nothing(init: Init) -> None:
    """F is 0 in every layer, and random with the other inits."""
    for kind, found in ((init, 0.0), ("o_zero", None)):
        grown = add_head(make_model("plain"), "start", kind, attention="selective")  # type: ignore[arg-type]
        forgettings: list[list[Tensor]] = []
        with torch.no_grad():
            grown(window_inputs(windows()), forgettings)
        greatest = [float(block.abs().max()) for layer in forgettings for block in layer]
        assert greatest == [0.0] * L if found == 0.0 else min(greatest) > 0.1


@pytest.mark.parametrize(("place", "new"), [("start", 0), ("end", H)])
def test_new_head_has_its_place_and_the_old_ones_are_as_they_were(place: Place, new: int) -> None:
    """The old heads keep their order; what the names call 0 is 0 and nothing else is."""
    model = make_model("plain")
    zeros = {
        "normal": (),
        "o_rescaled": (),
        "o_zero": ("o_proj",),
        "k_zero": ("k_proj",),
        "ko_zero": ("k_proj", "o_proj"),
    }
    for init, names in zeros.items():
        grown = add_head(model, place, init)  # type: ignore[arg-type]
        for layer in range(L):
            for old in range(H):
                found = head_parts(grown, layer, old + (new == 0))
                expected = head_parts(model, layer, old)
                assert all(torch.equal(found[name], expected[name]) for name in PROJECTIONS)
            assert tuple(name for name, part in head_parts(grown, layer, new).items() if not part.any()) == names
        others = {name: tensor for name, tensor in model.state_dict().items() if ".self_attn." not in name}
        assert all(torch.equal(grown.state_dict()[name], tensor) for name, tensor in others.items())


def test_rescaled_output_is_a_fifth() -> None:
    """Of the same random numbers."""
    model = make_model("plain")
    normal, rescaled = (head_parts(add_head(model, "end", init), 1, H)["o_proj"] for init in ("normal", "o_rescaled"))
    torch.testing.assert_close(rescaled, normal / 5)


def test_parameters_are_as_many_as_computed() -> None:
    """Four matrices of width times head width more in each layer; both widths stay."""
    model = make_model("plain")
    grown = add_head(model)
    before, after = (sum(parameter.numel() for parameter in one.parameters()) for one in (model, grown))
    assert after - before == L * 4 * D * K
    assert (grown.config.width, grown.config.head_width, grown.config.n_heads, grown.config.n_kv_heads) == (D, K, 4, 4)


@pytest.mark.parametrize("attention", ["plain", "selective"])
def test_parts_of_a_ko_zero_head_begin_to_move_one_after_the_other(attention: Literal["plain", "selective"]) -> None:
    """Output in step 1, keys and values in step 2, queries in step 3, all of them after 4."""
    model = add_head(make_model("plain"), "start", "ko_zero", attention=attention)
    assert first_moves(model, head=0) == {"o_proj": 1, "k_proj": 2, "v_proj": 2, "q_proj": 3}


def test_head_of_zeros_never_moves() -> None:
    """Which is why `zero` is refused."""
    model = add_head(make_model("plain"), "start", "ko_zero", attention="selective")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "v_proj" in name:
                parameter[:K] = 0
    assert first_moves(model, head=0) == {}
    with pytest.raises(ConfigError, match="found zero, which no gradient ever moves"):
        add_head(make_model("plain"), "start", "zero")  # type: ignore[arg-type]


def first_moves(model: LanguageModel, head: int) -> dict[str, int]:
    """For each part of a head, in all layers, the first of 4 steps without weight decay that moves it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    start = [head_parts(model, layer, head) for layer in range(L)]
    moves: dict[str, int] = {}
    for step in range(1, 5):
        optimiser.zero_grad()
        token_loss(model, window_inputs(windows()), windows()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for name in PROJECTIONS:
            moved = [not torch.equal(head_parts(model, layer, head)[name], start[layer][name]) for layer in range(L)]
            assert len(set(moved)) == 1
            if all(moved):
                moves.setdefault(name, step)
    return moves


def test_new_selecting_head_of_a_selective_model_is_warned_of() -> None:
    """The old selector becomes head 1 and selects no more: the copy is the model without its selection."""
    model = make_model("selective")
    with pytest.warns(UserWarning, match="the one that has learnt to becomes an ordinary head 1"):
        grown = add_head(model, "start", "ko_zero")
    assert (logits(grown) - logits(model)).abs().max() > 1e-2
    for layer in model.layers:
        layer.self_attn.rules = layer.self_attn.rules._replace(enabled=False)  # type: ignore[union-attr,operator]
    torch.testing.assert_close(logits(grown), logits(model), atol=1e-5, rtol=0)


def test_surgery_repeats_with_its_seed() -> None:
    """And leaves the model as it was."""
    model = make_model("plain")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second, other = (add_head(model, "start", "normal", seed=seed).state_dict() for seed in (5, 5, 6))
    name = "layers.1.self_attn.q_proj.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("n_kv_heads", "place", "init", "message"),
    [
        (1, "start", "ko_zero", "found 1 for 3 heads"),
        (H, "middle", "ko_zero", "expected place start or end, found 'middle'"),
        (H, "start", "ones", "expected init to be one of normal, .* found 'ones'"),
    ],
)
def test_impossible_surgery_is_refused(n_kv_heads: int, place: str, init: str, message: str) -> None:
    """Shared keys and values, and unknown names."""
    with pytest.raises(ConfigError, match=message):
        add_head(make_model("plain", n_kv_heads), place, init)  # type: ignore[arg-type]
