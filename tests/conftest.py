"""Settings that hold for all tests, and a tiny model that compresses."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.exact.spec import ModelSpec
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.card import Card
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import build_artefact
from llmzip.models.store import StoredModel, find_model
from llmzip.tokens.tokenizer import ByteTokenizer, strip_tokenizer
from llmzip.tokens.vocabulary import Vocabulary

# Tests that run side by side share the cores: threads of theirs that wait for each other would take them from the rest.
_n_side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _n_side_by_side > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _n_side_by_side)))

# Shared machines make single examples slow now and then; the time limit of pytest catches what hangs.
_base = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _base, max_examples=50)
settings.register_profile("ci", _base, max_examples=100, derandomize=True)
settings.register_profile("long", _base, max_examples=2000)
settings.load_profile(os.environ.get("LLMZIP_HYPOTHESIS", "ci" if os.environ.get("CI") else "default"))

TINY_SPEC = ModelSpec(
    family="bigram",
    vocab_size=512,
    width=256,
    n_layers=1,
    n_heads=4,
    n_kv_heads=2,
    head_width=16,
    ff_width=32,
    max_positions=128,
    bos_id=0,
    attention_scale=0.25,
    rotary_width=16,
    tied_head=False,
)


@pytest.fixture(scope="session")
def sample_text() -> bytes:
    """Python source, which `tiny_model` predicts better than zstd does."""
    return Path(textwrap.__file__).read_bytes().replace(b"\r\n", b"\n")


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory, sample_text: bytes) -> Path:
    """A data directory with one model, `tiny`: bigrams of source text, and a layer that stirs in what came before."""
    home = tmp_path_factory.mktemp("home")
    tokenizer_json = _train_tokenizer(sample_text.decode(), TINY_SPEC.vocab_size)
    model = FloatModel(TINY_SPEC, _bigram_tensors(tokenizer_json, sample_text), tokenizer_json, "none", "made here")
    folder = home / "models" / "tiny"
    folder.mkdir(parents=True)
    Card(build_artefact(model, folder), "tiny", "bigram", "none", "made here", 1, 1).write(folder)
    return home


@pytest.fixture
def tiny_model(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> StoredModel:
    """The model `tiny`, in the data directory of the test."""
    monkeypatch.setenv("LLMZIP_HOME", str(tiny_home))
    return find_model("tiny")


@pytest.fixture(scope="session")
def tiny_artefact(tiny_home: Path) -> Artefact:
    """The model `tiny`, loaded."""
    return load_artefact(tiny_home / "models" / "tiny")


@pytest.fixture(scope="session")
def tiny_network(tiny_artefact: Artefact) -> HyperpriorNetwork:
    """A network of a learned hyperprior for the model `tiny`, of random scales, means and slopes."""
    P, D, k, U = TINY_SPEC.n_layers + 1, TINY_SPEC.width, 2, 3
    rng = np.random.default_rng(0)
    slopes = rng.integers(-64, 64, (2, P, D, k))
    return HyperpriorNetwork(
        tiny_artefact.id,
        mean_shift=4,
        step_codes=rng.integers(100, 110, P),
        scales=rng.integers(60, 90, (P, D)),
        means=rng.integers(-16, 16, (P, D)),
        scale_slopes=slopes[0],
        mean_slopes=slopes[1],
        latent_weights=rng.integers(1, 65536, (P, k, 2 * U + 1)),
    )


@pytest.fixture(scope="session")
def train_tokenizer(sample_text: bytes) -> Callable[[int], str]:
    """Train a byte-level BPE of so many tokens on `sample_text`; token 0 is special."""
    return lambda vocab_size: _train_tokenizer(sample_text.decode(), vocab_size)


def _train_tokenizer(text: str, vocab_size: int) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return str(tokenizer.to_str())


def _bigram_tensors(tokenizer_json: str, text: bytes) -> Mapping[str, NDArray[np.float32]]:
    """The logarithms of bigram frequencies as the product of embedding and head, the other tensors random and small."""
    V, D = TINY_SPEC.vocab_size, TINY_SPEC.width
    vocabulary = Vocabulary.from_tokenizer(tokenizer_json, V, TINY_SPEC.bos_id)
    tokenizer = ByteTokenizer(strip_tokenizer(tokenizer_json), vocabulary)
    ids = tokenizer.encode(text)
    counts = np.bincount(ids, minlength=V) * (0.5 / len(ids)) + 0.1 / V + np.zeros((V, 1))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    left, singular, right = np.linalg.svd(np.log(counts / counts.sum(axis=1, keepdims=True)))
    states = left[:, : D - 1] * singular[: D - 1]
    # One more channel gives all rows the same length, so that the final norm scales them alike.
    length = np.sqrt((states**2).sum(axis=1))
    states = np.column_stack([states, np.sqrt((1.001 * length.max()) ** 2 - length**2)])
    root_mean_square = 1.001 * length.max() / np.sqrt(D)
    tensors = {"embed.weight": states / root_mean_square}
    tensors["head.weight"] = np.column_stack([right[: D - 1].T, np.zeros(V)]) * root_mean_square
    rng = np.random.default_rng(3)
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        shape = tensor_shape(TINY_SPEC, f"layers.0.{name}.weight")
        gain = 0.02 if name in ("o", "down") else 1.0
        tensors[f"layers.0.{name}.weight"] = rng.normal(size=shape) * gain / np.sqrt(shape[1])
    for name in ("layers.0.attention_norm", "layers.0.mlp_norm", "final_norm"):
        tensors[f"{name}.weight"] = np.ones(D)
    return {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
