"""Models in llama.cpp's GGUF files: metadata to a configuration, tensors under our names.

Each architecture's metadata is first turned into a `transformers` configuration, so that its family's
converter makes the spec; only the layout of the tensors is GGUF's own. Quantised tensors are read as
the float32 values that they stand for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import ModelSpec
from llmzip.models.convert.float_model import Load, Recipe, copy_of

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

# GGUF's name of a layer's parts, where it is not of one of the fused or permuted kinds below.
_PARTS = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "post_attention_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "post_mlp_norm": "post_ffw_norm",
}
_ENDS = {
    "embed.weight": "token_embd.weight",
    "positions.weight": "position_embd.weight",
    "final_norm.weight": "output_norm.weight",
    "final_norm.bias": "output_norm.bias",
    "head.weight": "output.weight",
}


class GgufFile:
    """One open GGUF file: metadata by key, tensors by name."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        try:
            self._reader: GGUFReader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelInvalidError(f"{path}: expected a GGUF file, found {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = str(self.metadata("general.architecture"))

    def metadata(self, key: str, default: Any = None) -> Any:
        """The value of `key`; in `{arch}.` keys the architecture is filled in. None needs no default."""
        field = self._reader.get_field(key.format(arch=getattr(self, "architecture", "")))
        return default if field is None else field.contents()

    def need(self, key: str) -> Any:
        """The value of `key`, which must be there."""
        value = self.metadata(key)
        if value is None:
            raise ModelInvalidError(f"GGUF metadata: expected {key.format(arch=self.architecture)}, found none")
        return value

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Rows first, as NumPy counts."""
        return tuple(int(n) for n in reversed(self._tensor(name).shape))

    def load(self, name: str) -> NDArray[np.float32]:
        """The tensor `name` as float32."""
        from gguf.quants import dequantize

        tensor = self._tensor(name)
        try:
            return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(self.shape(name))
        except NotImplementedError as error:
            raise ModelInvalidError(f"GGUF tensor {name}: expected a known type, found {error}") from error

    def _tensor(self, name: str) -> ReaderTensor:
        if name not in self._tensors:
            raise ModelInvalidError(f"GGUF file: expected a tensor {name}, found none")
        return self._tensors[name]


def recipes(file: GgufFile, spec: ModelSpec) -> dict[str, Recipe]:
    """Where each tensor of `spec` lies in the file."""
    found = {ours: copy_of(theirs) for ours, theirs in _ENDS.items() if theirs in file}
    for i in range(spec.n_layers):
        for kind in ("weight", "bias"):
            for ours, theirs in _PARTS.items():
                name = f"blk.{i}.{theirs}.{kind}"
                if name in file:
                    found[f"layers.{i}.{ours}.{kind}"] = _part(file, spec, ours, name)
            fused = f"blk.{i}.attn_qkv.{kind}"
            if fused in file:
                found |= {f"layers.{i}.{ours}.{kind}": _third(fused, n) for n, ours in enumerate("qkv")}
    return found


def _part(file: GgufFile, spec: ModelSpec, part: str, name: str) -> Recipe:
    if file.architecture == "llama" and part in ("q", "k"):
        return _unpermuted(name, spec.n_heads if part == "q" else spec.n_kv_heads)
    return copy_of(name)


def _third(name: str, n: int) -> Recipe:
    """Queries, keys or values of a fused matrix, where all queries come first."""
    return lambda load: np.split(load(name), 3)[n]


def _unpermuted(name: str, n_heads: int) -> Recipe:
    """Rows of a head back in halves: llama.cpp keeps the two rows of each rotated pair together."""

    def recipe(load: Load) -> NDArray[np.float32]:
        pairs = load(name)
        halves = pairs.reshape(n_heads, -1, 2, *pairs.shape[1:]).swapaxes(1, 2)
        return halves.reshape(pairs.shape)

    return recipe
