"""What every converter returns: a spec, float32 tensors under the names of `llmzip.exact.spec`, and a tokenizer.

Tensors are made one at a time, when they are asked for, so that a model never lies in memory twice.
Which tensors a model has is its converter's affair; this module checks that each has the shape that
the spec gives it and holds finite numbers only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import ModelSpec

Load = Callable[[str], NDArray[np.float32]]
Recipe = Callable[[Load], NDArray[np.float32]]

_LAYER = re.compile(r"layers\.(\d+)\.")


class Tensors(Mapping[str, NDArray[np.float32]]):
    """Tensors by name, each made from the checkpoint by its recipe whenever it is read."""

    def __init__(self, spec: ModelSpec, recipes: Mapping[str, Recipe], load: Load) -> None:
        self._spec = spec
        self._recipes = recipes
        self._load = load

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        tensor = np.ascontiguousarray(self._recipes[name](self._load), dtype=np.float32)
        shape = tensor_shape(self._spec, name)
        if tensor.shape != shape:
            raise ModelInvalidError(f"tensor {name}: expected shape {shape}, found {tensor.shape}")
        if not np.isfinite(tensor).all():
            raise ModelInvalidError(f"tensor {name}: expected finite numbers, found infinities or NaNs")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


@dataclass(frozen=True)
class FloatModel:
    """A public model as read, before quantisation.

    Attributes:
        spec: what the transformer is made of.
        tensors: float32 arrays under the names that `llmzip.exact.spec` lists, read lazily.
        tokenizer_json: text of a `tokenizers` file, as the source has it.
        licence: name of the licence, as the source states it; "unknown" if it does not.
        source: where the model was read from, for people.
    """

    spec: ModelSpec
    tensors: Mapping[str, NDArray[np.float32]]
    tokenizer_json: str
    licence: str
    source: str


def tensor_shape(spec: ModelSpec, name: str) -> tuple[int, ...]:
    """The shape that `spec` gives to the tensor `name`; an unknown name is a `ValueError`."""
    part, kind = _LAYER.sub("", name).rsplit(".", 1)
    queries, keys = spec.n_heads * spec.head_width, spec.n_kv_heads * spec.head_width
    matrices = {
        "embed": (spec.vocab_size, spec.width),
        "head": (spec.vocab_size, spec.width),
        "positions": (spec.max_positions, spec.width),
        "q": (queries, spec.width),
        "k": (keys, spec.width),
        "v": (keys, spec.width),
        "o": (spec.width, queries),
        "gate": (spec.ff_width, spec.width),
        "up": (spec.ff_width, spec.width),
        "down": (spec.width, spec.ff_width),
    }
    if part.startswith("ngram") and spec.ngrams:
        return (spec.ngrams.rows, spec.width // spec.ngrams.tables)
    if part in matrices:
        return matrices[part] if kind == "weight" else matrices[part][:1]
    if part in ("q_norm", "k_norm"):
        return (spec.head_width,)
    if part in ("attention_norm", "mlp_norm", "post_attention_norm", "post_mlp_norm", "final_norm"):
        return (spec.width,)
    raise ValueError(f"unknown tensor {name}")


def copy_of(name: str) -> Recipe:
    """The recipe of a tensor that the checkpoint holds as it is."""
    return lambda load: load(name)


def count_parameters(model: FloatModel) -> int:
    """How many numbers the model has, by its tensors' shapes."""
    return sum(math.prod(tensor_shape(model.spec, name)) for name in model.tensors)
