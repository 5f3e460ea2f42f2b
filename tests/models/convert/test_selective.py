"""Models that llmzip trains, from the trainer's export to the spec and tensors of the engine."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.models.artefact import load_artefact
from llmzip.models.convert import FloatModel, load_float_model
from llmzip.models.quantise import build_artefact

IDS = [0, *(7 * i % 383 + 1 for i in range(47))]


def _float_logits(model: FloatModel) -> NDArray[np.float32]:
    path = Path(__file__).parents[1] / "float_forward.py"
    spec = importlib.util.spec_from_file_location("float_forward", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return np.asarray(module.float_logits(model.spec, model.tensors, IDS))


def _trainer_logits(model: Any, **pruning: Any) -> NDArray[np.float32]:
    """Of the trainer's own model of what pruning leaves."""
    import torch

    from llmzip_training.pruning import PrunedModel, Pruning

    with torch.no_grad():
        return np.asarray(PrunedModel(model, Pruning(**pruning))(torch.tensor([IDS]))[0].numpy())


@pytest.mark.parametrize(
    ("name", "pruning"),
    [
        ("selective", {"cutoff": 16.0}),
        ("selective-gated", {"cutoff": 6.5}),
        ("selective-pruned", {"cutoff": 8.0, "budgets": (9, 0, 16)}),
        ("ngrams", {}),
    ],
)
def test_spec_and_tensors_mean_the_model_that_was_exported(
    name: str, pruning: dict[str, Any], tmp_path: Path, make_tiny: Any
) -> None:
    """A forward pass from the spec alone gives the trainer's logits, with what is pruned left out."""
    trained = make_tiny(name, tmp_path)
    expected = _trainer_logits(trained, **pruning)
    logits = _float_logits(load_float_model(tmp_path))
    assert np.abs(logits - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_pruning_of_the_pruned_model_shows(tmp_path: Path, make_tiny: Any) -> None:
    """Both its cutoff and its budgets: the comparison above compares something."""
    trained = make_tiny("selective-pruned", tmp_path)
    whole, cut, pruned = (
        _trainer_logits(trained, **pruning) for pruning in ({}, {"cutoff": 8.0}, {"cutoff": 8.0, "budgets": (9, 0, 16)})
    )
    assert np.abs(cut - pruned).max() > 0.1
    assert np.abs(cut - whole).max() > 1e-3


def test_spec_has_what_the_configuration_says(tmp_path: Path, make_tiny: Any) -> None:
    """Every field, from the trainer's shape and from the pruning chosen afterwards."""
    make_tiny("selective", tmp_path)
    expected = ModelSpec(
        family="llmzip_selective",
        vocab_size=384,
        width=32,
        n_layers=3,
        n_heads=4,
        n_kv_heads=2,
        head_width=8,
        ff_width=56,
        max_positions=64,
        bos_id=0,
        mlp="plain",
        activation="relu2",
        attention_scale=1 / math.sqrt(8),
        rotary_width=8,
        selection=Selection(16 * 1024),
        ngrams=Ngrams(2, 64),
    )
    assert load_float_model(tmp_path).spec == expected
    make_tiny("selective-pruned", tmp_path)
    expected = dataclasses.replace(expected, activation="silu", n_kv_heads=1, norm_eps=1e-6, ngrams=None)
    expected = dataclasses.replace(expected, selection=Selection(8192, (9, 0, 16)))
    assert load_float_model(tmp_path).spec == expected
    make_tiny("selective-gated", tmp_path)
    assert load_float_model(tmp_path).spec.selection == Selection(6656, (), protect_first=False, mask_self=True)
    make_tiny("ngrams", tmp_path)
    assert load_float_model(tmp_path).spec.selection is None


@pytest.mark.parametrize("name", ["selective", "ngrams"])
def test_our_models_convert_without_transformers(
    name: str, tmp_path: Path, make_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is optional and slow to import; others need it, so that the block is seen to work."""
    source, target = tmp_path / "source", tmp_path / "target"
    make_tiny(name, source)
    target.mkdir()
    monkeypatch.setitem(sys.modules, "transformers", None)
    build_artefact(load_float_model(source), target)
    assert load_artefact(target).spec.family == "llmzip_selective"
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ImportError, match="transformers"):
        load_float_model(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llmzip": None}, "n_heads: expected a whole number, found None"),
        ({"llmzip": 7}, "llmzip: expected an object, found 7"),
        ({"llmzip.n_heads": "4"}, "n_heads: expected a whole number, found '4'"),
        ({"llmzip.n_heads": 0}, "n_heads must be in 1.*, found 0"),
        ({"llmzip.n_heads": 0, "llmzip.head_width": 0}, "n_heads must be in 1.*, found 0"),
        ({"llmzip.n_heads": 64, "llmzip.head_width": None}, "head_width: expected a whole number above 0, found 0"),
        ({"llmzip.head_width": -8}, "head_width: expected a whole number above 0, found -8"),
        ({"llmzip.head_width": 7}, "rotary_width must be even"),
        ({"llmzip.width": None}, "width: expected a whole number, found None"),
        ({"llmzip.mlp": "wide"}, "mlp: expected one of gated, plain, found 'wide'"),
        ({"llmzip.mlp": ["gated"]}, "mlp: expected one of gated, plain"),
        ({"llmzip.activation": "gelu"}, "activation: expected one of silu, relu2, found 'gelu'"),
        ({"llmzip.attention": "dense"}, "attention: expected one of plain, selective, found 'dense'"),
        ({"llmzip.protect_first": "no"}, "protect_first: expected true or false, found 'no'"),
        ({"llmzip.mask_self": 1}, "mask_self: expected true or false, found 1"),
        ({"llmzip.ngram_tables": 9, "llmzip.width": 36}, r"ngrams tables must be in 1\.\.3, found 9"),
        ({"llmzip.ngram_tables": -1}, r"ngrams tables must be in 1\.\.3, found -1"),
        ({"llmzip.ngram_rows": 65}, "ngrams rows must be a power of two, found 65"),
        ({"llmzip.ngram_rows": None}, "ngram_rows: expected a whole number"),
        ({"selection": None}, "cutoff: expected a number, found None"),
        ({"selection": "half"}, "selection: expected an object, found 'half'"),
        ({"selection.cutoff": None}, "cutoff: expected a number, found None"),
        ({"selection.cutoff": float("nan")}, "cutoff: expected nats, at most 512, found nan"),
        ({"selection.cutoff": float("inf")}, "cutoff: expected nats, at most 512, found inf"),
        ({"selection.cutoff": 0}, "cutoff: expected nats, at most 512, found 0.0"),
        ({"selection.cutoff": 1e-6}, "cutoff must be in 1..524288, found 0"),
        ({"selection.cutoff": 513.0}, "cutoff: expected nats, at most 512, found 513"),
        ({"selection.budgets": 5}, "budgets: expected whole numbers, found 5"),
        ({"selection.budgets": ["5", 4, 4]}, "budgets: expected whole numbers"),
        ({"selection.budgets": [5.0, 4, 4]}, "budgets: expected whole numbers"),
        ({"selection.budgets": [5, True, 4]}, "budget of layer 1 must be a whole number, found True"),
        ({"selection.budgets": [5, 4, 10**400]}, "budget of layer 2 must be in"),
        ({"selection.cutoff": 10**400}, "cutoff: expected a number in the range of a float, found 1000"),
        ({"bos_token_id": True}, "bos_id must be a whole number, found True"),
        ({"selection.budgets": [5, 4]}, "budgets must have 3 entries or none, found 2"),
        ({"selection.budgets": [5, 4, -1]}, "selection budget of layer 2 must be in 0.*, found -1"),
        ({"bos_token_id": None}, "bos_token_id: expected a token id"),
        ({"bos_token_id": 384}, r"bos_id must be in 0\.\.383, found 384"),
    ],
    ids=str,
)
def test_damaged_configurations_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, make_tiny: Any
) -> None:
    """By the name of the setting, never with another kind of error."""
    make_tiny("selective", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, name = path.split(".")
        target = config[parents[0]] if parents else config
        target[name] = value
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelInvalidError, match=message):
        load_float_model(tmp_path)


def test_tensors_of_another_shape_are_refused(tmp_path: Path, make_tiny: Any) -> None:
    """A table of runs that has other rows than the configuration says, and one that is not there."""
    from safetensors.numpy import load_file, save_file

    make_tiny("selective", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_ngrams.tables.0.weight"] = np.zeros((32, 16), np.float32)
    del tensors["model.embed_ngrams.tables.1.weight"]
    save_file(tensors, path)
    found = load_float_model(tmp_path).tensors
    with pytest.raises(ModelInvalidError, match=r"ngram2\.weight: expected shape \(64, 16\), found \(32, 16\)"):
        found["ngram2.weight"]
    with pytest.raises(ModelInvalidError, match=r"expected a tensor embed_ngrams\.tables\.1\.weight, found none"):
        found["ngram3.weight"]
