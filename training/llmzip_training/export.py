# ruff: noqa: TID253
"""Writes a trained model as a Hugging Face folder; imports torch, so it is loaded lazily as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.model import LanguageModel, ModelConfig

# F in nats from which on a token is excluded: a weight of e^-16 is below one unit of the engine's 2^24.
CUTOFF = 16.0


def export_model(
    model: LanguageModel,
    tokenizer_json: str,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    budgets: Sequence[int] = (),
    cutoff: float = CUTOFF,
) -> None:
    """Write `config.json`, `model.safetensors` and `tokenizer.json`.

    The output matrix is the embedding and is stored once. A Llama loads as `LlamaForCausalLM`; the others
    are known to llmzip alone.

    Args:
        model: what was trained.
        tokenizer_json: text of its tokenizer.
        folder: made when missing.
        dtype: of the tensors.
        budgets: the most tokens that a query of each layer sees, 0 for no limit; empty for none anywhere.
        cutoff: F in nats from which on a token is excluded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = llama_config(model.config, dtype) if is_llama(model.config) else own_config(model.config, budgets, cutoff)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(tokenizer_json)


def is_llama(config: ModelConfig) -> bool:
    """Whether a model has nothing that a Llama has not."""
    return (config.attention, config.mlp, config.activation, config.ngram_tables) == ("plain", "gated", "silu", 0)


def own_config(config: ModelConfig, budgets: Sequence[int], cutoff: float) -> dict[str, Any]:
    """The `config.json` of a model that only llmzip knows."""
    return {
        "model_type": "llmzip_selective",
        "llmzip": asdict(config),
        "selection": {"cutoff": cutoff, "budgets": list(budgets)},
        "bos_token_id": END_OF_DOCUMENT,
    }


def llama_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The `config.json` of a model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rotary_base,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": END_OF_DOCUMENT,
        "eos_token_id": END_OF_DOCUMENT,
        "dtype": str(dtype).removeprefix("torch."),
    }
