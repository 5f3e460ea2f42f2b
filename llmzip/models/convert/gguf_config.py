"""GGUF metadata as `transformers` configurations, one function a group of architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmzip.models.convert.gguf_file import GgufFile
from llmzip.models.convert.settings import unsupported

_SEPARATOR = "<|endoftext|>"
# llama.cpp writes neither of these for Gemma 3; they are the same in every published model.
_GEMMA3_LOCAL_ROTARY_BASE = 10000.0
_GEMMA3_LAYERS_A_PATTERN = 6
# The one published Gemma 3 whose query scale is not that of its head width (27B).
_GEMMA3_WIDE_LAYERS = 62


def configuration(file: GgufFile) -> dict[str, Any]:
    """The arguments of the `transformers` configuration that describes the file's model."""
    makers: dict[str, Callable[[GgufFile], dict[str, Any]]] = {
        "llama": _llama,
        "qwen2": _llama,
        "qwen3": _llama,
        "gemma3": _gemma3,
        "gptneox": _gpt_neox,
        "gpt2": _gpt2,
    }
    if file.architecture not in makers:
        raise unsupported("GGUF", "general.architecture", f"one of {', '.join(makers)}", file.architecture)
    common = {
        "vocab_size": file.shape("token_embd.weight")[0],
        "hidden_size": file.need("{arch}.embedding_length"),
        "num_hidden_layers": file.need("{arch}.block_count"),
        "num_attention_heads": file.need("{arch}.attention.head_count"),
        "intermediate_size": file.need("{arch}.feed_forward_length"),
        "max_position_embeddings": file.need("{arch}.context_length"),
        "tie_word_embeddings": "output.weight" not in file,
        "bos_token_id": _bos_id(file),
        "eos_token_id": file.metadata("tokenizer.ggml.eos_token_id"),
    }
    return common | makers[file.architecture](file)


def _bos_id(file: GgufFile) -> int | None:
    """The token that stood before each text in pre-training.

    Chat models name a mark of their dialogue instead; after it, plain text costs a fifth more bits
    (SmolLM2-135M-Instruct, one paragraph), so the separator of documents is taken where there is one.
    """
    tokens = file.need("tokenizer.ggml.tokens")
    if _SEPARATOR in tokens:
        return int(tokens.index(_SEPARATOR))
    id_: int | None = file.metadata("tokenizer.ggml.bos_token_id")
    return id_


def _llama(file: GgufFile) -> dict[str, Any]:
    if file.metadata("{arch}.expert_count", 0):
        raise unsupported("GGUF", "expert_count", "none", file.metadata("{arch}.expert_count"))
    if "rope_freqs.weight" in file and np.any(file.load("rope_freqs.weight") != 1):
        raise unsupported("GGUF", "rope_freqs.weight", "ones (use the model's Hugging Face folder)", "factors")
    width, heads = file.need("{arch}.embedding_length"), file.need("{arch}.attention.head_count")
    head_width = file.metadata("{arch}.attention.key_length", width // heads)
    rotated = file.metadata("{arch}.rope.dimension_count", head_width)
    if rotated != head_width:
        raise unsupported("GGUF", "rope.dimension_count", str(head_width), rotated)
    return {
        "model_type": file.architecture,
        "num_key_value_heads": file.metadata("{arch}.attention.head_count_kv", heads),
        "head_dim": head_width,
        "rms_norm_eps": _short(file.need("{arch}.attention.layer_norm_rms_epsilon")),
        "rope_parameters": _rotary(file, 10000.0),
    }


def _gemma3(file: GgufFile) -> dict[str, Any]:
    head_width = file.need("{arch}.attention.key_length")
    n_layers = file.need("{arch}.block_count")
    wide = n_layers == _GEMMA3_WIDE_LAYERS
    scale = file.need("{arch}.embedding_length") // file.need("{arch}.attention.head_count") if wide else head_width
    local = {"rope_type": "default", "rope_theta": _GEMMA3_LOCAL_ROTARY_BASE}
    kinds = ("full_attention", "sliding_attention")
    return {
        "model_type": "gemma3_text",
        "num_key_value_heads": file.need("{arch}.attention.head_count_kv"),
        "head_dim": head_width,
        "rms_norm_eps": _short(file.need("{arch}.attention.layer_norm_rms_epsilon")),
        "query_pre_attn_scalar": scale,
        "sliding_window": file.need("{arch}.attention.sliding_window"),
        "layer_types": [kinds[(i + 1) % _GEMMA3_LAYERS_A_PATTERN > 0] for i in range(n_layers)],
        "rope_parameters": {"full_attention": _rotary(file, 1000000.0), "sliding_attention": local},
    }


def _gpt_neox(file: GgufFile) -> dict[str, Any]:
    head_width = file.need("{arch}.embedding_length") // file.need("{arch}.attention.head_count")
    share = file.need("{arch}.rope.dimension_count") / head_width
    return {
        "model_type": "gpt_neox",
        "layer_norm_eps": _short(file.need("{arch}.attention.layer_norm_epsilon")),
        "use_parallel_residual": file.metadata("{arch}.use_parallel_residual", True),
        "rope_parameters": _rotary(file, 10000.0) | {"partial_rotary_factor": share},
    }


def _gpt2(file: GgufFile) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_inner": file.need("{arch}.feed_forward_length"),
        "layer_norm_epsilon": _short(file.need("{arch}.attention.layer_norm_epsilon")),
    }


def _rotary(file: GgufFile, default_base: float) -> dict[str, Any]:
    base = _short(file.metadata("{arch}.rope.freq_base", default_base))
    kind = file.metadata("{arch}.rope.scaling.type", "none")
    if kind == "none":
        return {"rope_type": "default", "rope_theta": base}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": base, "factor": _short(file.need("{arch}.rope.scaling.factor"))}
    raise unsupported("GGUF", "rope.scaling.type", "none or linear", kind)


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, where GGUF's float32 reads 9.999999747378752e-06."""
    return float(str(np.float32(value)))
