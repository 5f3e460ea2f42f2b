# ruff: noqa: TID253
"""Reads trained models back; imports torch, so it is loaded lazily as a whole.

A model is named by a folder that `export_model` wrote, by the folder of a run, or by a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llmzip.errors import ConfigError, FileError, FileMissingError
from llmzip_training.checkpoint import load_checkpoint, load_newest
from llmzip_training.config import build
from llmzip_training.files import read_json
from llmzip_training.model import LanguageModel, ModelConfig


def load_model(path: Path) -> LanguageModel:
    """Load a model, in float32 on the CPU.

    Args:
        path: an exported folder, a run's folder (its exported model, or else its newest checkpoint), or a checkpoint.

    Raises:
        FileMissingError: there is no model.
        ConfigError: its configuration is none of ours, or its tensors do not fit it.
        FileError: the weights or a checkpoint are damaged.
    """
    if (folder := exported_folder(path)) is not None:
        tensors = _read_tensors(folder / "model.safetensors")
        weights = {name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()}
        return _build(read_config(folder / "config.json"), weights, folder)
    state = load_newest(path) if path.is_dir() else load_checkpoint(path) if path.is_file() else None
    if state is None:
        raise FileMissingError(
            "model: expected config.json, hf/config.json or a checkpoint, found none", path=str(path)
        )
    values, weights = (state.get("run") or {}).get("model"), state.get("model", {})
    return _build(build(ModelConfig, values, f"{path}: run.model"), weights, path)


def exported_folder(path: Path) -> Path | None:
    """The folder of an exported model at `path` or in its `hf`, if there is one."""
    return next((folder for folder in (path, path / "hf") if (folder / "config.json").is_file()), None)


def find_tokenizer(path: Path) -> Path:
    """The `tokenizer.json` of a model: in its folder, or in that of the run that its checkpoint belongs to.

    Raises:
        FileMissingError: there is none.
    """
    for folder in (exported_folder(path), path, path.parent, path.parent.parent):
        if folder is not None and (folder / "tokenizer.json").is_file():
            return folder / "tokenizer.json"
    raise FileMissingError("model: expected tokenizer.json beside it, found none", path=str(path))


def read_config(path: Path) -> ModelConfig:
    """The shape of a model from its `config.json`: its own table there, or the entries of a Llama.

    Raises:
        ConfigError: it is not what `export_model` writes, or damaged.
    """
    config = read_json(path, "model")
    if "llmzip" in config:
        return build(ModelConfig, config["llmzip"], f"{path}: llmzip")
    if config.get("model_type") != "llama":
        raise ConfigError(f"{path}: expected a table llmzip or model_type llama, found {config.get('model_type')!r}")
    values = {name: config[key] for name, key in _LLAMA_KEYS.items() if key in config}
    return build(ModelConfig, values, f"{path}: llama")


_LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "ffn_width": "intermediate_size",
    "context": "max_position_embeddings",
    "rotary_base": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "head_width": "head_dim",
}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise FileError(f"weights: expected safetensors, found something else: {error}", path=str(path)) from error
    return tensors


def _build(config: ModelConfig, weights: Mapping[str, Tensor], where: Path) -> LanguageModel:
    model = LanguageModel(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        found = " ".join(str(error).split())
        raise ConfigError(f"{where}: expected the tensors of its configuration, found others: {found}") from error
    return model.eval()
