"""Tiny models of every family, made by `transformers` or by our trainer, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VOCAB_SIZE = 384
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 1000.0,
}
TINY_MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "llama-untied": {"model_type": "llama", "tie_word_embeddings": False, "head_dim": 16},
    "llama3": {"model_type": "llama", "rope_parameters": LLAMA3},
    "llama-linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": True},
    "gpt_neox": {"model_type": "gpt_neox", "hidden_act": "gelu"},
    "gpt_neox-serial": {"model_type": "gpt_neox", "use_parallel_residual": False, "hidden_act": "gelu_new"},
    "gpt2": {"model_type": "gpt2", "n_positions": 64},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 20,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
        },
    },
}
# Models that llmzip trains: their `ModelConfig`, and the pruning chosen afterwards.
OUR_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "width": 32,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "ffn_width": 56,
    "context": 64,
    "attention": "selective",
}
OUR_MODELS: dict[str, dict[str, Any]] = {
    "selective": {"mlp": "plain", "activation": "relu2", "ngram_tables": 2, "ngram_rows": 64},
    "selective-gated": {"protect_first": False, "mask_self": True, "head_width": 12, "rotary_base": 500.0},
    "ngrams": {"attention": "plain", "ngram_tables": 1, "ngram_rows": 256, "activation": "relu2"},
    "selective-pruned": {"mlp": "plain", "n_kv_heads": 1, "norm_eps": 1e-6},
}
OUR_PRUNING: dict[str, dict[str, Any]] = {
    "selective-gated": {"cutoff": 6.5},
    "selective-pruned": {"cutoff": 8.0, "budgets": (9, 0, 16)},
}
TOKENIZER = {
    "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "model": {"type": "BPE", "vocab": {}, "merges": []},
}

MakeModel = Callable[[str, Path], Any]


@pytest.fixture(scope="session")
def make_tiny() -> MakeModel:
    """Write the tiny model of that name into a folder and return it as `transformers`, or our trainer, has it."""
    return lambda name, folder, **changes: (_make_ours if name in OUR_MODELS else _make_tiny)(name, folder, **changes)


def _make_tiny(name: str, folder: Path, **changes: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(SIZES | TINY_MODELS[name] | changes))).eval()
    with torch.no_grad():  # biases and norms away from what they begin with
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    return model


def _make_ours(name: str, folder: Path, initializer_range: float = 0.3) -> Any:
    import torch

    from llmzip_training.export import export_model
    from llmzip_training.model import LanguageModel, ModelConfig

    torch.manual_seed(5)
    model = LanguageModel(ModelConfig(**(OUR_SIZES | OUR_MODELS[name]))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=initializer_range)
    export_model(model, json.dumps(TOKENIZER), folder, **OUR_PRUNING.get(name, {}))
    return model
