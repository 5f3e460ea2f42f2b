"""Random models of every variant of the transformer, the same numbers on every machine."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.exact.spec import ModelSpec, Ngrams, RotaryScaling, Selection
from llmzip.exact.transformer import Parameters
from llmzip.models.artefact import Settings
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import quantise

# Without a GPU kernels run through Triton's interpreter, which must be chosen before Triton is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

Floats = NDArray[np.float32]
MakeParameters = Callable[[ModelSpec], Parameters]

SIZES: dict[str, Any] = {
    "vocab_size": 83,
    "width": 24,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_width": 6,
    "ff_width": 37,
    "max_positions": 64,
    "bos_id": 1,
    "rotary_width": 6,
    "attention_scale": 0.4375,
}
# Some products with input rows of two limbs, some of one, so that both are run.
TWO_LIMBS = ("embed", "head", "o", "v")
# What a family has of its own; together they reach every branch of the transformer.
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3-untied": {"tied_head": False, "rotary_scaling": RotaryScaling("llama3", 8.0, 1.0, 4.0, 32)},
    "qwen3": {"qk_norm": True, "head_width": 18, "rotary_width": 18, "n_kv_heads": 4},
    "gpt_neox": {
        "norm": "layer",
        "mlp": "plain",
        "activation": "gelu",
        "rotary_width": 2,
        "parallel_residual": True,
        "n_kv_heads": 4,
    },
    "gpt2": {
        "norm": "layer",
        "mlp": "plain",
        "activation": "gelu_tanh",
        "rotary_width": 0,
        "learned_positions": True,
        "n_kv_heads": 4,
    },
    "gemma3": {
        "activation": "gelu_tanh",
        "embedding_scale": 4.898979663848877,
        "qk_norm": True,
        "sandwich_norms": True,
        "n_kv_heads": 1,
        "local_window": 5,
        "local_layers": (True, False),
        "local_rotary_base": 100.0,
        "rotary_scaling": RotaryScaling("linear", 8.0),
    },
    # In windows of 40 tokens both layers lose tokens to the cutoff, and the first to its budget too.
    "selective": {
        "mlp": "plain",
        "activation": "relu2",
        "selection": Selection(cutoff=4000, budgets=(7, 0)),
        "ngrams": Ngrams(tables=3, rows=64),
    },
}


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> ModelSpec:
    """One tiny spec of each variant, its family the variant's name."""
    return ModelSpec(**(SIZES | VARIANTS[request.param] | {"family": request.param}))


@pytest.fixture(scope="session")
def sizes() -> dict[str, Any]:
    """Arguments of a small `ModelSpec`, to be changed."""
    return SIZES


@pytest.fixture(scope="session")
def masked_forward() -> ModuleType:
    """The module `masked_forward.py` beside the tests."""
    spec = importlib.util.spec_from_file_location("masked_forward", Path(__file__).with_name("masked_forward.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_parameters() -> MakeParameters:
    """Make the parameters of a spec from numbers that no library's version or rounding changes."""
    return _make_parameters


def _make_parameters(spec: ModelSpec) -> Parameters:
    raw = np.random.PCG64(11)
    tensors = {}
    for name in _names(spec):
        shape = tensor_shape(spec, name)
        if name.endswith("norm.weight"):
            tensors[name] = np.float32(1) + np.float32(0.25) * uniform(raw, shape)
        elif len(shape) == 1:
            tensors[name] = np.float32(0.25) * uniform(raw, shape)
        else:
            tensors[name] = np.float32(2 / math.sqrt(shape[1])) * uniform(raw, shape)
    model = FloatModel(spec, tensors, "", "none", "made here")
    return quantise(model, Settings(spec, TWO_LIMBS))


def uniform(raw: np.random.PCG64, shape: tuple[int, ...]) -> Floats:
    """Multiples of 2**-23 in -1 .. 1; the raw stream of PCG64 is guaranteed never to change."""
    bits = raw.random_raw(math.prod(shape)) >> np.uint64(40)
    numbers: Floats = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return numbers.reshape(shape)


def _names(spec: ModelSpec) -> list[str]:
    bias = spec.norm == "layer"
    names = ["embed.weight", *_norm("final_norm", bias)]
    names += ["positions.weight"] * spec.learned_positions + ["head.weight"] * (not spec.tied_head)
    names += [f"ngram{n + 2}.weight" for n in range(spec.ngrams.tables if spec.ngrams else 0)]
    for layer in range(spec.n_layers):
        norms = _norm("attention_norm", bias) + _norm("mlp_norm", bias)
        norms += ["q_norm.weight", "k_norm.weight"] * spec.qk_norm
        norms += ["post_attention_norm.weight", "post_mlp_norm.weight"] * spec.sandwich_norms
        matrices = ["q", "k", "v", "o", "up", "down"] + ["gate"] * (spec.mlp == "gated")
        kinds = ("weight", "bias") if bias else ("weight",)
        names += [f"layers.{layer}.{name}" for name in norms]
        names += [f"layers.{layer}.{name}.{kind}" for name in matrices for kind in kinds]
    return names


def _norm(name: str, bias: bool) -> list[str]:
    return [f"{name}.weight"] + [f"{name}.bias"] * bias
