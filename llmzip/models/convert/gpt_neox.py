"""GPT-NeoX, so Pythia: layer norms, attention beside the MLP, part of each head rotated, biases everywhere.

Its checkpoints hold queries, keys and values in one matrix, head after head: the three of a head in a row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec
from llmzip.models.convert.float_model import Load, Recipe, copy_of
from llmzip.models.convert.settings import Settings

MODEL_TYPES = ("gpt_neox",)


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a GPT-NeoX configuration describes."""
    settings.expect("attention_bias", True)
    width, heads = settings.integer("hidden_size"), settings.integer("num_attention_heads")
    head_width = width // heads
    rotary = settings.rotary()
    share = rotary.get("partial_rotary_factor", settings.number("rotary_pct", 1.0))
    return ModelSpec(
        family=settings.family,
        vocab_size=settings.integer("vocab_size"),
        width=width,
        n_layers=settings.integer("num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=heads,
        head_width=head_width,
        ff_width=settings.integer("intermediate_size"),
        max_positions=settings.integer("max_position_embeddings"),
        bos_id=settings.bos_id(),
        norm="layer",
        norm_eps=settings.number("layer_norm_eps"),
        mlp="plain",
        activation=settings.activation("hidden_act"),
        attention_scale=1 / math.sqrt(head_width),
        rotary_width=int(head_width * share),
        rotary_base=float(rotary["rope_theta"]),
        rotary_scaling=settings.rotary_scaling(rotary),
        parallel_residual=bool(settings.get("use_parallel_residual", True)),
        tied_head=bool(settings.get("tie_word_embeddings", False)),
    )


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    found = {"embed.weight": copy_of("embed_in.weight")}
    if not model.tied_head:
        found["head.weight"] = copy_of("embed_out.weight")
    for kind in ("weight", "bias"):
        found[f"final_norm.{kind}"] = copy_of(f"final_layer_norm.{kind}")
        for i in range(model.n_layers):
            at = f"layers.{i}."
            for ours, theirs in _LAYER.items():
                found[f"{at}{ours}.{kind}"] = copy_of(f"{at}{theirs}.{kind}")
            for n, part in enumerate("qkv"):
                fused = f"{at}attention.query_key_value.{kind}"
                found[f"{at}{part}.{kind}"] = _third_of_each_head(fused, model.n_heads, n)
    return found


_LAYER = {
    "attention_norm": "input_layernorm",
    "o": "attention.dense",
    "mlp_norm": "post_attention_layernorm",
    "up": "mlp.dense_h_to_4h",
    "down": "mlp.dense_4h_to_h",
}


def _third_of_each_head(name: str, n_heads: int, n: int) -> Recipe:
    def recipe(load: Load) -> NDArray[np.float32]:
        fused = load(name)
        heads = fused.reshape(n_heads, 3, -1, *fused.shape[1:])
        return heads[:, n].reshape(-1, *fused.shape[1:])

    return recipe
