"""The models that llmzip trains itself: selective attention, a plain or gated MLP, embeddings of runs of tokens.

`config.json` holds their shape under `llmzip`, as the trainer's `ModelConfig` has it, and under `selection` what
pruning was chosen after training; other libraries do not know this model type.
"""

from __future__ import annotations

import math

from llmzip.exact.spec import MAX_CUTOFF, SELECTION_STEPS, ModelSpec, Ngrams, Selection
from llmzip.models.convert.float_model import Recipe, copy_of
from llmzip.models.convert.settings import Settings, unsupported

MODEL_TYPES = ("llmzip_selective",)


def spec(settings: Settings) -> ModelSpec:
    """The transformer that a configuration of ours describes."""
    shape = settings.part("llmzip")
    heads, width = shape.integer("n_heads"), shape.integer("width")
    head_width = shape.integer("head_width", 0) or width // max(heads, 1)
    if head_width < 1:
        raise unsupported(settings.family, "head_width", "a whole number above 0", head_width)
    return ModelSpec(
        family=settings.family,
        vocab_size=shape.integer("vocab_size"),
        width=width,
        n_layers=shape.integer("n_layers"),
        n_heads=heads,
        n_kv_heads=shape.integer("n_kv_heads"),
        head_width=head_width,
        ff_width=shape.integer("ffn_width"),
        max_positions=shape.integer("context"),
        bos_id=settings.bos_id(),
        norm_eps=shape.number("norm_eps"),
        mlp=shape.one_of("mlp", "gated", "plain"),
        activation=shape.one_of("activation", "silu", "relu2"),
        attention_scale=1 / math.sqrt(head_width),
        rotary_width=head_width,
        rotary_base=shape.number("rotary_base"),
        selection=_selection(settings, shape),
        ngrams=_ngrams(shape),
    )


def recipes(model: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `model` lies in a checkpoint."""
    names = {"embed.weight": "embed_tokens.weight", "final_norm.weight": "norm.weight"}
    for i in range(model.ngrams.tables if model.ngrams else 0):
        names[f"ngram{i + 2}.weight"] = f"embed_ngrams.tables.{i}.weight"
    attention = {part: f"self_attn.{part}_proj" for part in "qkvo"}
    mlp = {part: f"mlp.{part}_proj" for part in ("gate", "up", "down") if part != "gate" or model.mlp == "gated"}
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    for i in range(model.n_layers):
        for ours, theirs in (norms | attention | mlp).items():
            names[f"layers.{i}.{ours}.weight"] = f"layers.{i}.{theirs}.weight"
    return {ours: copy_of(theirs) for ours, theirs in names.items()}


def _selection(settings: Settings, shape: Settings) -> Selection | None:
    if shape.one_of("attention", "plain", "selective") == "plain":
        return None
    pruning = settings.part("selection")
    cutoff, budgets = pruning.number("cutoff"), pruning.get("budgets", [])
    if not 0 < cutoff <= MAX_CUTOFF / SELECTION_STEPS:
        raise unsupported(settings.family, "cutoff", f"nats, at most {MAX_CUTOFF // SELECTION_STEPS}", cutoff)
    if not isinstance(budgets, list) or not all(isinstance(budget, int) for budget in budgets):
        raise unsupported(settings.family, "budgets", "whole numbers", budgets)
    return Selection(
        cutoff=round(cutoff * SELECTION_STEPS),
        budgets=tuple(budgets),
        protect_first=shape.boolean("protect_first", True),
        mask_self=shape.boolean("mask_self", False),
    )


def _ngrams(shape: Settings) -> Ngrams | None:
    tables = shape.integer("ngram_tables", 0)
    return Ngrams(tables, shape.integer("ngram_rows")) if tables else None
