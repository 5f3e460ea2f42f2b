# ruff: noqa: TID253
"""Writes a trained model as a Hugging Face folder; imports torch, so it is loaded lazily as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from llmzip.errors import ConfigError, FileError
from llmzip.exact.spec import MAX_CUTOFF, MAX_SIZE, SELECTION_STEPS
from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.files import write_all_whole
from llmzip_training.load import find_tokenizer, load_model
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.pruning import Pruning

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
    """Write `config.json`, `model.safetensors` and `tokenizer.json`, all three or none.

    The output matrix is the embedding and is stored once. A Llama loads as `LlamaForCausalLM`; the others
    are known to llmzip alone.

    Args:
        model: what was trained.
        tokenizer_json: text of its tokenizer.
        folder: made when missing.
        dtype: of the tensors.
        budgets: the most tokens that a query of each layer sees, 0 for no limit; empty for none anywhere.
        cutoff: F in nats from which on a token is excluded.

    Raises:
        ConfigError: budgets or cutoff are none that the engine takes.
        FileError: the disk is full, or a file cannot be written; what was there before is as it was.
    """
    _expect_pruning(model.config, tuple(budgets), cutoff)
    tensors = {f"model.{name}": value.to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    config = llama_config(model.config, dtype) if is_llama(model.config) else own_config(model.config, budgets, cutoff)
    files = {
        "model.safetensors": save(tensors, metadata={"format": "pt"}),
        "config.json": f"{json.dumps(config, indent=2)}\n".encode(),
        "tokenizer.json": tokenizer_json.encode(),
    }
    try:
        write_all_whole(folder, files)
    except OSError as error:
        kind = type(FileError.from_os_error(error))
        raise kind(f"model not exported: {error.strerror or error}", path=str(folder)) from error


def export_folder(source: Path, folder: Path, budgets: Sequence[int] = (), cutoff: float = CUTOFF) -> None:
    """Export the model at `source`, whatever `load_model` takes, with other budgets or another cutoff.

    Raises:
        LlmzipError: there is no model or no tokenizer, and as `export_model` does.
    """
    tokenizer_json = find_tokenizer(source).read_bytes().decode()
    export_model(load_model(source), tokenizer_json, folder, budgets=budgets, cutoff=cutoff)


def _expect_pruning(config: ModelConfig, budgets: tuple[int, ...], cutoff: float) -> None:
    Pruning(budgets, cutoff=cutoff).for_layers(config.n_layers)
    if config.attention != "selective" and (budgets or cutoff != CUTOFF):
        raise ConfigError(f"export: expected a selective model for budgets or a cutoff, found a {config.attention} one")
    if max(budgets, default=0) > MAX_SIZE:
        raise ConfigError(f"export: expected budgets of at most {MAX_SIZE} tokens, found {max(budgets)}")
    if not 1 <= cutoff * SELECTION_STEPS <= MAX_CUTOFF:
        least, greatest = 1 / SELECTION_STEPS, MAX_CUTOFF / SELECTION_STEPS
        raise ConfigError(f"export: expected a cutoff from {least:g} to {greatest:g} nats, found {cutoff:g}")


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
