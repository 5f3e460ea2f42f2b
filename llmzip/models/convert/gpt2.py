"""GPT-2: layer norms, learned positions, biases everywhere, a head tied to the embedding.

Its checkpoints hold matrices as `[columns in, rows out]`, and queries, keys and values side by side.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec
from llmzip.models.convert.float_model import Load, Recipe, copy_of
from llmzip.models.convert.settings import Settings

MODEL_TYPES = ("gpt2",)


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a GPT-2 configuration describes."""
    settings.expect("scale_attn_weights", True)
    settings.expect("scale_attn_by_inverse_layer_idx", False)
    settings.expect("add_cross_attention", False)
    width, heads = settings.integer("n_embd"), settings.integer("n_head")
    return ModelSpec(
        family=settings.family,
        vocab_size=settings.integer("vocab_size"),
        width=width,
        n_layers=settings.integer("n_layer"),
        n_heads=heads,
        n_kv_heads=heads,
        head_width=width // heads,
        ff_width=settings.integer("n_inner", 4 * width),
        max_positions=settings.integer("n_positions"),
        bos_id=settings.bos_id(),
        norm="layer",
        norm_eps=settings.number("layer_norm_epsilon"),
        mlp="plain",
        activation=settings.activation("activation_function"),
        attention_scale=1 / math.sqrt(width // heads),
        learned_positions=True,
        tied_head=bool(settings.get("tie_word_embeddings", True)),
    )


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    found = {"embed.weight": copy_of("wte.weight"), "positions.weight": copy_of("wpe.weight")}
    if not model.tied_head:
        found["head.weight"] = copy_of("lm_head.weight")
    for kind in ("weight", "bias"):
        found[f"final_norm.{kind}"] = copy_of(f"ln_f.{kind}")
        for i in range(model.n_layers):
            ours, theirs = f"layers.{i}.", f"h.{i}."
            found[f"{ours}attention_norm.{kind}"] = copy_of(f"{theirs}ln_1.{kind}")
            found[f"{ours}mlp_norm.{kind}"] = copy_of(f"{theirs}ln_2.{kind}")
            for n, part in enumerate("qkv"):
                found[f"{ours}{part}.{kind}"] = _transposed(f"{theirs}attn.c_attn.{kind}", n)
            found[f"{ours}o.{kind}"] = _transposed(f"{theirs}attn.c_proj.{kind}")
            found[f"{ours}up.{kind}"] = _transposed(f"{theirs}mlp.c_fc.{kind}")
            found[f"{ours}down.{kind}"] = _transposed(f"{theirs}mlp.c_proj.{kind}")
    return found


def _transposed(name: str, third: int | None = None) -> Recipe:
    """The matrix (or bias) the right way round; of a fused one the `third` asked for."""

    def recipe(load: Load) -> NDArray[np.float32]:
        rows = load(name).T
        return rows if third is None else np.split(rows, 3)[third]

    return recipe
