# ruff: noqa: TID253
"""Writes a trained model as a Hugging Face folder; imports torch, so it is loaded lazily as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.model import Llama, ModelConfig


def export_model(model: Llama, tokenizer_json: str, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json`, `model.safetensors` and `tokenizer.json` that load as `LlamaForCausalLM`.

    The output matrix is the embedding and is stored once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(llama_config(model.config, dtype), indent=2) + "\n")
    (folder / "tokenizer.json").write_text(tokenizer_json)


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
