# ruff: noqa: TID253
"""Adds an attention head to every layer of a trained model; imports torch, so it is loaded lazily as a whole.

The width of the model and that of its heads stay. At the start the new head is head 0, the one that selects: so a
plain model becomes selective without giving up a head that it needs. At the end the old head 0 selects. How the new
head begins is its `init`, whose name says which of its parts are 0:

    normal       none: disturbs the trained model
    o_rescaled   none, the output a fifth of that of `normal`
    o_zero       the output: the same logits with plain attention; a selecting head selects at random
    k_zero       the keys: selects nothing, but writes the mean of its values
    ko_zero      both: the same logits
    zero         refused

A head that is 0 in queries, keys, values and output stays so, for the gradient of each is a product with another.
With keys and output at 0, the output moves in the first step, keys and values in the second, queries in the third.
Training goes on with new optimisers, since the state of the old ones has the old shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training.model import LanguageModel, projection_std

Place = Literal["start", "end"]
Init = Literal["normal", "o_rescaled", "o_zero", "k_zero", "ko_zero"]

OUTPUT_SHARES = {"normal": 1.0, "o_rescaled": 0.2, "o_zero": 0.0, "k_zero": 1.0, "ko_zero": 0.0}
ZERO_KEYS = ("k_zero", "ko_zero")


def add_head(
    model: LanguageModel,
    place: Place = "start",
    init: Init = "ko_zero",
    attention: Literal["plain", "selective"] | None = None,
    seed: int = 0,
) -> LanguageModel:
    """Copy a model, with one more head in every layer.

    With `ko_zero` the copy gives the same logits if both are plain, if a plain model becomes selective with the new
    head at the start, and if both are selective with the new head at the end.

    Args:
        model: has keys and values of its own for every head.
        place: `start`, the new head becomes head 0, or `end`, it becomes the last.
        init: how the new head begins.
        attention: of the copy; that of `model` by default.
        seed: of the new head's random weights.

    Raises:
        ConfigError: heads share keys and values, or `place` or `init` is none of the above.

    Warns:
        UserWarning: a selective model gets its new head at the start, so its old selecting head no longer selects.
    """
    _expect_possible(model, place, init)
    old = model.config
    config = replace(old, n_heads=old.n_heads + 1, n_kv_heads=old.n_heads + 1, attention=attention or old.attention)
    if place == "start" and old.attention == config.attention == "selective":
        message = "surgery: the new head selects from now on; the one that has learnt to becomes an ordinary head 1"
        warnings.warn(message, stacklevel=2)
    weight = model.embed_tokens.weight
    grown = LanguageModel(config).to(weight.device, weight.dtype)
    grown.load_state_dict(_grown_tensors(model, place, init, torch.Generator().manual_seed(seed)))
    return grown.train(model.training)


def _grown_tensors(model: LanguageModel, place: Place, init: Init, generator: torch.Generator) -> dict[str, Tensor]:
    config = model.config
    width, head_width, n_heads = config.width, config.head_width, config.n_heads
    tensors: Mapping[str, Tensor] = model.state_dict()
    grown = dict(tensors)
    for i in range(config.n_layers):
        for kind in ("q", "k", "v"):
            name = f"layers.{i}.self_attn.{kind}_proj.weight"
            share = 0.0 if kind == "k" and init in ZERO_KEYS else 1.0
            rows = share * projection_std(width) * torch.randn(head_width, width, generator=generator)
            grown[name] = _joined(tensors[name], rows, place, dim=0)
        name = f"layers.{i}.self_attn.o_proj.weight"
        std = OUTPUT_SHARES[init] * projection_std((n_heads + 1) * head_width)
        columns = std * torch.randn(width, head_width, generator=generator)
        grown[name] = _joined(tensors[name], columns, place, dim=1)
    return grown


def _joined(old: Tensor, new: Tensor, place: Place, dim: int) -> Tensor:
    new = new.to(old)
    return torch.cat((new, old) if place == "start" else (old, new), dim=dim)


def _expect_possible(model: LanguageModel, place: str, init: str) -> None:
    if init == "zero":
        raise ConfigError("surgery: expected an init that can learn, found zero, which no gradient ever moves")
    if init not in OUTPUT_SHARES:
        raise ConfigError(f"surgery: expected init to be one of {', '.join(OUTPUT_SHARES)}, found {init!r}")
    if place not in ("start", "end"):
        raise ConfigError(f"surgery: expected place start or end, found {place!r}")
    n_heads, n_kv_heads = model.config.n_heads, model.config.n_kv_heads
    if n_kv_heads != n_heads:
        raise ConfigError(
            f"surgery: expected keys and values of its own for every head, found {n_kv_heads} for {n_heads} heads"
        )
