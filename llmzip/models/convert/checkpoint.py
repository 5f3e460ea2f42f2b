"""Hugging Face folders: config.json, weights in safetensors or PyTorch files, tokenizer.json, licence."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.models.convert import selective
from llmzip.models.convert.sentencepiece_file import sentencepiece_file_json

# What wraps the bare transformer in a family's model class; some checkpoints have it, some do not.
_PREFIXES = ("model.", "transformer.", "gpt_neox.")


class Checkpoint:
    """The weights of one folder, read one at a time by names without the model class's prefix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._safetensors = _safetensors_index(folder)
        if not self._safetensors and not self._pytorch_files():
            raise ModelInvalidError(f"{folder}: expected *.safetensors or pytorch_model*.bin, found neither")

    def configuration(self) -> dict[str, Any]:
        """config.json with the defaults of its model type filled in."""
        own = _own_configuration(self._folder / "config.json")
        if own is not None:
            return own
        # Slow to import, and not needed for a model of ours.
        from transformers import AutoConfig

        try:
            values: dict[str, Any] = AutoConfig.from_pretrained(self._folder, local_files_only=True).to_dict()
        except (OSError, ValueError, KeyError) as error:
            raise ModelInvalidError(f"{self._folder}: expected a supported config.json, found {error}") from error
        return values

    def load(self, name: str) -> NDArray[np.float32]:
        """The tensor `name` as float32; half precisions convert exactly."""
        import torch

        tensor = self._tensor(name)
        if tensor is None:
            raise ModelInvalidError(f"{self._folder}: expected a tensor {name}, found none")
        return np.asarray(tensor.to(torch.float32).numpy())

    def _tensor(self, name: str) -> Any:
        from safetensors import safe_open

        if not self._safetensors:
            return self._pytorch.get(name)
        if name not in self._safetensors:
            return None
        path, full_name = self._safetensors[name]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(full_name)

    @functools.cached_property
    def _pytorch(self) -> dict[str, Any]:
        import torch

        tensors: dict[str, Any] = {}
        for path in self._pytorch_files():
            shard = torch.load(path, map_location="cpu", weights_only=True)
            tensors |= {_bare(name): tensor for name, tensor in shard.items()}
        return tensors

    def _pytorch_files(self) -> list[Path]:
        return sorted(self._folder.glob("pytorch_model*.bin"))


def tokenizer_of(folder: Path) -> str:
    """The text of the folder's tokenizer.json, or what stands for its tokenizer.model."""
    path, sentencepiece = folder / "tokenizer.json", folder / "tokenizer.model"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if sentencepiece.is_file():
        return sentencepiece_file_json(sentencepiece.read_bytes())
    raise ModelInvalidError(f"{folder}: expected tokenizer.json or tokenizer.model, found neither")


def licence_of(folder: Path) -> str:
    """The licence that the folder's model card or LICENSE file names."""
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("license:"):
                return line.removeprefix("license:").strip()
    licence = folder / "LICENSE"
    if licence.is_file():
        lines = (line.strip() for line in licence.read_text(encoding="utf-8", errors="replace").splitlines())
        return next((line for line in lines if line), "unknown")
    return "unknown"


def _safetensors_index(folder: Path) -> dict[str, tuple[Path, str]]:
    """Bare name to file and full name, over all shards."""
    from safetensors import SafetensorError, safe_open

    index: dict[str, tuple[Path, str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                index |= {_bare(name): (path, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise ModelInvalidError(f"{path}: expected safetensors, found {error}") from error
    return index


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _own_configuration(path: Path) -> dict[str, Any] | None:
    """The configuration of a model that llmzip trained, which transformers does not know; else None."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    own = isinstance(values, dict) and values.get("model_type") in selective.MODEL_TYPES
    return values if own else None
