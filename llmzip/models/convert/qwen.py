"""Qwen2 (biases on queries, keys and values) and Qwen3 (norms on queries and keys); the rest is as in Llama."""

from __future__ import annotations

from llmzip.exact.spec import ModelSpec
from llmzip.models.convert import llama
from llmzip.models.convert.float_model import Recipe, copy_of
from llmzip.models.convert.settings import Settings

MODEL_TYPES = ("qwen2", "qwen3")


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a Qwen configuration describes."""
    settings.expect("attention_bias", False)
    if settings.get("use_sliding_window", False):
        settings.no_sliding_window()
    return llama.gated_spec(settings, qk_norm=settings.family == "qwen3")


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    found = llama.recipes(model)
    for i in range(model.n_layers):
        at = f"layers.{i}."
        if model.qk_norm:
            found |= {f"{at}{part}.weight": copy_of(f"{at}self_attn.{part}.weight") for part in ("q_norm", "k_norm")}
        else:
            found |= {f"{at}{part}.bias": copy_of(f"{at}self_attn.{part}_proj.bias") for part in "qkv"}
    return found
