"""Public models to float32 tensors and a `ModelSpec`, one family a file.

A family's module names the `transformers` model types it reads (`MODEL_TYPES`), makes the spec from a
configuration (`spec`) and says where each tensor lies in a checkpoint (`recipes`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from llmzip.errors import ModelInvalidError, ModelNotFoundError
from llmzip.models.convert import gemma3, gpt2, gpt_neox, llama, qwen, selective
from llmzip.models.convert.checkpoint import Checkpoint, licence_of, tokenizer_of
from llmzip.models.convert.float_model import FloatModel, Tensors
from llmzip.models.convert.gguf_config import configuration
from llmzip.models.convert.gguf_file import GgufFile
from llmzip.models.convert.gguf_file import recipes as gguf_recipes
from llmzip.models.convert.settings import Settings, unsupported
from llmzip.models.convert.tokenizer_json import tokenizer_json

__all__ = ["FloatModel", "load_float_model"]

_MODULES = (llama, qwen, gpt_neox, gpt2, gemma3, selective)
_FAMILIES: dict[str, ModuleType] = {name: module for module in _MODULES for name in module.MODEL_TYPES}


def load_float_model(source: Path) -> FloatModel:
    """Read a public model; its tensors are loaded when they are asked for.

    Args:
        source: a Hugging Face folder (config.json, tokenizer.json, weights) or a GGUF file.

    Raises:
        ModelNotFoundError: there is no such file or folder.
        ModelInvalidError: the model is damaged, or has a setting that the exact transformer lacks.
    """
    if source.is_dir():
        return _from_folder(source)
    if source.is_file():
        return _from_gguf(source)
    raise ModelNotFoundError(f"{source}: expected a model's folder or a GGUF file, found nothing")


def _from_folder(folder: Path) -> FloatModel:
    checkpoint = Checkpoint(folder)
    settings = Settings(checkpoint.configuration())
    family = _family(settings)
    spec = family.spec(settings)
    tensors = Tensors(spec, family.recipes(spec), checkpoint.load)
    return FloatModel(spec, tensors, tokenizer_of(folder), licence_of(folder), folder.name)


def _from_gguf(path: Path) -> FloatModel:
    file = GgufFile(path)
    settings = Settings(_complete(configuration(file)))
    family = _family(settings)
    spec = family.spec(settings)
    recipes = gguf_recipes(file, spec)
    _check_names(set(family.recipes(spec)), set(recipes))
    tensors = Tensors(spec, recipes, file.load)
    licence = file.metadata("general.license", "unknown")
    return FloatModel(spec, tensors, tokenizer_json(file), licence, path.name)


def _check_names(need: set[str], have: set[str]) -> None:
    if need != have:
        missing, odd = sorted(need - have)[:3], sorted(have - need)[:3]
        raise ModelInvalidError(
            f"GGUF file: expected a tensor for each of the family's, {missing} missing, {odd} too many"
        )


def _family(settings: Settings) -> ModuleType:
    if settings.family not in _FAMILIES:
        raise unsupported(settings.family, "model_type", f"one of {', '.join(_FAMILIES)}", settings.family)
    return _FAMILIES[settings.family]


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the defaults of their model type filled in."""
    from transformers import AutoConfig

    complete: dict[str, Any] = AutoConfig.for_model(**values).to_dict()
    return complete
