"""Llama and its relatives: SmolLM2, TinyLlama, OpenLLaMA, Llama 3, Mistral.

RMS norms, rotated halves of each head, grouped keys and values, a gated MLP, no biases.
"""

from __future__ import annotations

import math

from llmzip.exact.spec import ModelSpec
from llmzip.models.convert.float_model import Recipe, copy_of
from llmzip.models.convert.settings import Settings

MODEL_TYPES = ("llama", "mistral")


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a Llama configuration describes."""
    settings.expect("attention_bias", False)
    settings.expect("mlp_bias", False)
    settings.no_sliding_window()
    return gated_spec(settings)


def gated_spec(settings: Settings, *, qk_norm: bool = False) -> ModelSpec:
    """What Llama and Qwen have in common."""
    heads = settings.integer("num_attention_heads")
    head_width = settings.integer("head_dim", settings.integer("hidden_size") // heads)
    rotary = settings.rotary()
    return ModelSpec(
        family=settings.family,
        vocab_size=settings.integer("vocab_size"),
        width=settings.integer("hidden_size"),
        n_layers=settings.integer("num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=settings.integer("num_key_value_heads", heads),
        head_width=head_width,
        ff_width=settings.integer("intermediate_size"),
        max_positions=settings.integer("max_position_embeddings"),
        bos_id=settings.bos_id(),
        norm_eps=settings.number("rms_norm_eps"),
        activation=settings.activation("hidden_act"),
        attention_scale=1 / math.sqrt(head_width),
        rotary_width=head_width,
        rotary_base=float(rotary["rope_theta"]),
        rotary_scaling=settings.rotary_scaling(rotary),
        qk_norm=qk_norm,
        tied_head=bool(settings.get("tie_word_embeddings", False)),
    )


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    names = {"embed.weight": "embed_tokens.weight", "final_norm.weight": "norm.weight"}
    if not model.tied_head:
        names["head.weight"] = "lm_head.weight"
    for i in range(model.n_layers):
        for ours, theirs in _layer_names().items():
            names[f"layers.{i}.{ours}.weight"] = f"layers.{i}.{theirs}.weight"
    return {ours: copy_of(theirs) for ours, theirs in names.items()}


def _layer_names() -> dict[str, str]:
    attention = {part: f"self_attn.{part}_proj" for part in "qkvo"}
    mlp = {part: f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    return {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", **attention, **mlp}
