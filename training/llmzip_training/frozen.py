# ruff: noqa: TID253
"""Exact artefacts as float models whose weights stay as they are; imports torch, so it is loaded lazily as a whole.

What conditions a model is trained in float, by gradients through the numbers of the exact engine: int8 times scale.
Rows are not quantised between the products, and a selective model evicts nothing: neither budgets nor cutoff apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.errors import ConfigError
from llmzip.exact.matrix import QuantisedMatrix
from llmzip.exact.spec import MAX_WINDOW, ModelSpec
from llmzip.models.artefact import Artefact
from llmzip_training.corpus import END_OF_DOCUMENT
from llmzip_training.model import LanguageModel, ModelConfig

# What a `LanguageModel` has no other way to do.
_ONLY: dict[str, Any] = {
    "norm": "rms",
    "qk_norm": False,
    "sandwich_norms": False,
    "parallel_residual": False,
    "learned_positions": False,
    "embedding_scale": 1.0,
    "local_layers": (),
    "rotary_scaling": None,
}
_BLOCK = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}


class FrozenModel(LanguageModel):
    """A language model without gradients of its weights, its head tied or not.

    Attributes:
        bos_id: the token that every window begins with.
    """

    def __init__(self, config: ModelConfig, bos_id: int, *, tied_head: bool = True) -> None:
        super().__init__(config)
        self.bos_id = bos_id
        self.lm_head = None if tied_head else nn.Linear(config.width, config.vocab_size, bias=False)
        self.requires_grad_(requires_grad=False)
        self.eval()

    @property
    def head(self) -> Tensor:
        """The output matrix, `[V, D]`."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def predict(self, x: Tensor) -> Tensor:
        """Logits `[B, T, V]` of the residual stream behind the last layer."""
        return functional.linear(self.norm(x), self.head)


def load_frozen(artefact: Artefact, device: str = "cpu") -> FrozenModel:
    """The float model of an artefact, float32 on `device`.

    Args:
        artefact: selective models of our own, and Llamas.
        device: a torch device.

    Raises:
        ConfigError: its family has what a `LanguageModel` has not; the message names the field.
    """
    spec = artefact.spec
    _expect_expressible(artefact)
    model = FrozenModel(frozen_config(spec), spec.bos_id, tied_head=spec.tied_head)
    model.load_state_dict(dict(_weights(artefact)))
    return model.to(device)


def frozen_config(spec: ModelSpec) -> ModelConfig:
    """The shape of the float model; its windows are as long as the exact engine's may be."""
    selection, ngrams = spec.selection, spec.ngrams
    if spec.activation not in ("silu", "relu2"):
        raise ConfigError(f"model: expected activation silu or relu2, found {spec.activation}")
    return ModelConfig(
        spec.vocab_size,
        spec.width,
        spec.n_layers,
        spec.n_heads,
        spec.n_kv_heads,
        spec.ff_width,
        min(spec.max_positions, MAX_WINDOW),
        spec.mlp,
        spec.activation,
        "selective" if selection else "plain",
        selection.protect_first if selection else True,
        selection.mask_self if selection else False,
        ngrams.tables if ngrams else 0,
        ngrams.rows if ngrams else 0,
        spec.rotary_base,
        spec.norm_eps,
        spec.head_width,
    )


def _expect_expressible(artefact: Artefact) -> None:
    spec = artefact.spec
    only = _ONLY | {"rotary_width": spec.head_width} | ({"bos_id": END_OF_DOCUMENT} if spec.ngrams else {})
    for name, expected in only.items():
        if getattr(spec, name) != expected:
            raise ConfigError(f"model: expected {name} {expected}, found {getattr(spec, name)}")
    for name, matrix in artefact.parameters.matrices.items():
        if matrix.bias is not None:
            raise ConfigError(f"model: expected no bias, found {name}.bias")


def _weights(artefact: Artefact) -> Iterator[tuple[str, Tensor]]:
    spec = artefact.spec
    # A scale other than that of the float model goes into the queries, which rotation leaves as long as they are.
    gain = spec.attention_scale * spec.head_width**0.5
    for name, matrix in artefact.parameters.matrices.items():
        weight = _dequantised(matrix)
        yield _float_name(name) + ".weight", weight * gain if name.endswith(".q") else weight
    for name, vector in artefact.parameters.vectors.items():
        yield _float_name(name) + ".weight", torch.from_numpy(vector.copy())


def _dequantised(matrix: QuantisedMatrix) -> Tensor:
    return torch.from_numpy(matrix.q).float() * torch.from_numpy(matrix.scale)[:, None]


def _float_name(name: str) -> str:
    if name.startswith("layers."):
        place, part = name.rsplit(".", 1)
        return f"{place}.{_BLOCK[part]}"
    if name.startswith("ngram"):
        return f"embed_ngrams.tables.{int(name.removeprefix('ngram')) - 2}"
    return {"embed": "embed_tokens", "head": "lm_head", "final_norm": "norm"}[name]
