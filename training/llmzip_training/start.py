# ruff: noqa: TID253
"""Gives a run the weights of another model to begin with; imports torch, so it is loaded lazily as a whole.

The weights must fit the model of the run. Three things may differ, and nothing else: the length of the window, since
no weight belongs to it; the kind of attention and its rules, since selection has no weights of its own; and one more
attention head, which `surgery` adds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training.load import load_model
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.surgery import Init, Place, add_head

_MAY_DIFFER = {"context", "attention", "protect_first", "mask_self", "n_heads", "n_kv_heads"}


@dataclass(frozen=True)
class StartConfig:
    """What a run begins with.

    Attributes:
        folder: an exported folder, a run's folder or a checkpoint, as `load_model` takes it; empty for random
            weights.
        place: of the new head, where the run's model has one more than the one it begins with; see `add_head`.
        init: how that head begins.
    """

    folder: str = ""
    place: Place = "start"
    init: Init = "ko_zero"


def starting_weights(config: ModelConfig, start: StartConfig, seed: int) -> dict[str, Tensor]:
    """The weights that a run's model begins with, by name.

    Args:
        config: of the run's model.
        start: which weights; its folder is not empty.
        seed: of the random weights of a new head.

    Raises:
        FileMissingError: there is no model.
        ConfigError: its shape is not that of the run's model, nor becomes it by one head more.
    """
    model = load_model(Path(start.folder))
    found = model.config
    for field in fields(ModelConfig):
        if field.name not in _MAY_DIFFER and getattr(found, field.name) != getattr(config, field.name):
            raise _unfit(start, field.name, getattr(config, field.name), getattr(found, field.name))
    if (found.n_heads, found.n_kv_heads) != (config.n_heads, config.n_kv_heads):
        model = _with_new_head(model, config, start, seed)
    return model.state_dict()


def _with_new_head(model: LanguageModel, config: ModelConfig, start: StartConfig, seed: int) -> LanguageModel:
    found = model.config
    if (found.n_heads + 1, found.n_heads + 1) != (config.n_heads, config.n_kv_heads):
        expected, there = ((one.n_heads, one.n_kv_heads) for one in (config, found))
        raise _unfit(start, "n_heads and n_kv_heads, or one less of each,", expected, there)
    return add_head(model, start.place, start.init, config.attention, seed)


def _unfit(start: StartConfig, name: str, expected: object, found: object) -> ConfigError:
    return ConfigError(f"{start.folder}: start_from: expected the run's {name} {expected}, found {found}")
