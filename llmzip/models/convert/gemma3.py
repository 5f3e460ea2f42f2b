"""Gemma 3's text models: norms before and after each half of a block, mostly local attention, scaled embedding.

Checkpoints hold norm weights less one; here the one is added.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec
from llmzip.models.convert import llama
from llmzip.models.convert.float_model import Load, Recipe
from llmzip.models.convert.settings import Settings, unsupported

MODEL_TYPES = ("gemma3_text",)


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a Gemma 3 configuration describes."""
    settings.expect("attention_bias", False)
    settings.expect("final_logit_softcapping")
    settings.expect("attn_logit_softcapping")
    settings.expect("use_bidirectional_attention", False)
    settings.expect("tie_word_embeddings", True)
    width, head_width = settings.integer("hidden_size"), settings.integer("head_dim")
    wide, local = settings.rotary("full_attention"), settings.rotary("sliding_attention")
    if settings.rotary_scaling(local) is not None:
        raise unsupported(settings.family, "rope_type of sliding_attention", "default", local)
    n_layers = settings.integer("num_hidden_layers")
    return ModelSpec(
        family=settings.family,
        vocab_size=settings.integer("vocab_size"),
        width=width,
        n_layers=n_layers,
        n_heads=settings.integer("num_attention_heads"),
        n_kv_heads=settings.integer("num_key_value_heads"),
        head_width=head_width,
        ff_width=settings.integer("intermediate_size"),
        max_positions=settings.integer("max_position_embeddings"),
        bos_id=settings.bos_id(),
        norm_eps=settings.number("rms_norm_eps"),
        activation=settings.activation("hidden_activation"),
        attention_scale=1 / math.sqrt(settings.number("query_pre_attn_scalar")),
        embedding_scale=float(np.float32(math.sqrt(width))),
        rotary_width=head_width,
        rotary_base=float(wide["rope_theta"]),
        rotary_scaling=settings.rotary_scaling(wide),
        local_rotary_base=float(local["rope_theta"]),
        qk_norm=True,
        sandwich_norms=True,
        tied_head=True,
        local_window=settings.integer("sliding_window"),
        local_layers=_local_layers(settings, n_layers),
    )


def _local_layers(settings: Settings, n_layers: int) -> tuple[bool, ...]:
    types = settings.get("layer_types")
    if types is None:
        pattern = settings.integer("sliding_window_pattern")
        return tuple((i + 1) % pattern > 0 for i in range(n_layers))
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise unsupported(settings.family, "layer_types", "full_attention or sliding_attention", kind)
    return tuple(kind == "sliding_attention" for kind in types)


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    found = llama.recipes(model) | {"final_norm.weight": _plus_one("norm.weight")}
    for i in range(model.n_layers):
        for ours, theirs in _NORMS.items():
            found[f"layers.{i}.{ours}.weight"] = _plus_one(f"layers.{i}.{theirs}.weight")
    return found


_NORMS = {
    "attention_norm": "input_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


def _plus_one(name: str) -> Recipe:
    def recipe(load: Load) -> NDArray[np.float32]:
        return np.float32(1) + load(name)

    return recipe
