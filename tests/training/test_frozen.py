# ruff: noqa: TID253
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.errors import ConfigError
from llmzip.exact.backend import load_backend
from llmzip.exact.spec import ModelSpec, Ngrams, RotaryScaling, Selection
from llmzip.exact.transformer import Segment, Transformer
from llmzip.models.artefact import Artefact, Settings
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import PRODUCTS, quantise
from llmzip_training.frozen import load_frozen

LLAMA: dict[str, Any] = {
    "family": "llama", "vocab_size": 83, "width": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_width": 6,
    "ff_width": 37, "max_positions": 64, "bos_id": 0, "rotary_width": 6, "attention_scale": 0.4375,
}  # fmt: skip
SELECTIVE = {
    "mlp": "plain", "activation": "relu2", "selection": Selection(1 << 19, (), False, True), "ngrams": Ngrams(2, 32),
}  # fmt: skip


def _artefact(spec: ModelSpec, like: Artefact) -> Artefact:
    rng = np.random.default_rng(5)
    names = ["embed", "final_norm", *(f"ngram{i + 2}" for i in range(spec.ngrams.tables if spec.ngrams else 0))]
    names += [] if spec.tied_head else ["head"]
    parts = ["q", "k", "v", "o", "up", "down", "attention_norm", "mlp_norm"] + ["gate"] * (spec.mlp == "gated")
    names += [f"layers.{i}.{part}" for i in range(spec.n_layers) for part in parts]
    tensors = {}
    for name in names:
        shape = tensor_shape(spec, f"{name}.weight")
        numbers = rng.normal(size=shape) / np.sqrt(shape[-1]) if len(shape) > 1 else 1 + 0.2 * rng.normal(size=shape)
        tensors[f"{name}.weight"] = numbers.astype(np.float32)
    settings = Settings(spec, PRODUCTS)
    parameters = quantise(FloatModel(spec, tensors, "", "none", "made here"), settings)
    return Artefact("0" * 64, Path(), settings, parameters, like.vocabulary, like.tokenizer_json)


@pytest.mark.parametrize(
    "change", [{}, {"tied_head": False}, {"bos_id": 3}, SELECTIVE], ids=["tied", "untied", "other-bos", "selective"]
)
def test_logits_are_those_of_the_exact_engine_but_for_rounding(change: dict[str, Any], tiny_artefact: Artefact) -> None:
    """Queries, keys and values of 8 bits move them by about a hundredth of their deviation."""
    artefact = _artefact(ModelSpec(**LLAMA | change), tiny_artefact)
    tokens = np.random.default_rng(1).integers(0, 83, 40).astype(np.int32)
    exact = Transformer(artefact.spec, artefact.parameters, load_backend("reference"))
    expected = exact.logits(exact.hidden(exact.new_cache(1, 40), [Segment(0, 0, tokens)]))
    with torch.no_grad():
        found = load_frozen(artefact)(torch.from_numpy(tokens.astype(np.int64))[None])[0].numpy()
    error = np.sqrt(np.square(found - expected).mean()) / expected.std()
    assert error < 0.015


def test_weights_have_no_gradient(tiny_artefact: Artefact) -> None:
    """None of them."""
    assert not any(parameter.requires_grad for parameter in load_frozen(tiny_artefact).parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"qk_norm": True},
        {"sandwich_norms": True},
        {"parallel_residual": True},
        {"norm": "layer"},
        {"embedding_scale": 2.0},
        {"learned_positions": True},
        {"rotary_width": 4},
        {"rotary_scaling": RotaryScaling("linear", 2.0)},
        {"local_layers": (True, False), "local_window": 5},
        {"activation": "gelu"},
        {"ngrams": Ngrams(2, 32), "bos_id": 3},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_other_families_are_refused_by_the_name_of_the_field(change: dict[str, Any], tiny_artefact: Artefact) -> None:
    """What a `LanguageModel` has not is never left out in silence."""
    settings = Settings(ModelSpec(**LLAMA | change), PRODUCTS)
    name = "bos_id" if "ngrams" in change else next(iter(change))
    with pytest.raises(ConfigError, match=f"expected {name} .*, found"):
        load_frozen(dataclasses.replace(tiny_artefact, settings=settings))


def test_biases_are_refused(tiny_artefact: Artefact) -> None:
    """By the name of the matrix."""
    matrices = dict(tiny_artefact.parameters.matrices)
    q = matrices["layers.0.q"]
    matrices["layers.0.q"] = dataclasses.replace(q, bias=np.zeros(len(q.q), np.float32))
    parameters = tiny_artefact.parameters._replace(matrices=matrices)
    with pytest.raises(ConfigError, match=r"found layers\.0\.q\.bias"):
        load_frozen(dataclasses.replace(tiny_artefact, parameters=parameters))
