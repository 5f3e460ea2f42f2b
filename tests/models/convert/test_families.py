from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError, ModelNotFoundError
from llmzip.models.convert import FloatModel, load_float_model

IDS = [0, *(7 * i % 383 + 1 for i in range(23))]
NAMES = [
    *("llama", "llama-untied", "llama3", "llama-linear", "mistral"),
    *("qwen2", "qwen3", "gpt_neox", "gpt_neox-serial", "gpt2", "gemma3"),
]


def _float_logits(model: FloatModel) -> NDArray[np.float32]:
    path = Path(__file__).parents[1] / "float_forward.py"
    spec = importlib.util.spec_from_file_location("float_forward", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return np.asarray(module.float_logits(model.spec, model.tensors, IDS))


def _reference_logits(model: Any) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor([IDS])).logits[0].float().numpy())


@pytest.mark.parametrize("name", NAMES)
def test_spec_and_tensors_mean_the_model_they_were_read_from(name: str, tmp_path: Path, make_tiny: Any) -> None:
    """A forward pass from the spec alone gives the logits of `transformers`."""
    reference = _reference_logits(make_tiny(name, tmp_path))
    logits = _float_logits(load_float_model(tmp_path))
    assert np.abs(logits - reference).max() < 1e-4 * max(1, np.abs(reference).max())


def test_half_precision_weights_become_the_same_numbers_in_float32(tmp_path: Path, make_tiny: Any) -> None:
    """bfloat16 converts exactly."""
    import torch

    model = make_tiny("llama", tmp_path).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    expected = model.state_dict()["model.layers.1.mlp.up_proj.weight"].float().numpy()
    assert np.array_equal(load_float_model(tmp_path).tensors["layers.1.up.weight"], expected)


def test_pytorch_files_read_like_safetensors(tmp_path: Path, make_tiny: Any) -> None:
    """The older weight files give the same tensors."""
    import torch

    model = make_tiny("gpt2", tmp_path)
    before = dict(load_float_model(tmp_path).tensors)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.transformer.state_dict(), tmp_path / "pytorch_model.bin")
    after = load_float_model(tmp_path).tensors
    assert sorted(before) == sorted(after)
    assert all(np.array_equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias: expected False, found True"),
        ("llama", {"hidden_act": "relu"}, "hidden_act: expected one of .*, found 'relu'"),
        ("mistral", {"sliding_window": 8}, "sliding_window: expected none below 2048, found 8"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8}, "sliding_window"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected False"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping: expected nothing, found 30.0"),
        ("llama", {"model_type": "gpt_bigcode"}, "model_type: expected one of llama, .*, found 'gpt_bigcode'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
    ],
)
def test_unsupported_settings_are_refused_by_name(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path, make_tiny: Any
) -> None:
    """Nothing that changes the computation is overlooked."""
    make_tiny(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ModelInvalidError, match=message):
        load_float_model(tmp_path)


def test_missing_files_are_named(tmp_path: Path, make_tiny: Any) -> None:
    """A folder without weights, tokenizer or configuration says so; so does a path to nothing."""
    with pytest.raises(ModelNotFoundError, match="found nothing"):
        load_float_model(tmp_path / "none")
    with pytest.raises(ModelInvalidError, match="found neither"):
        load_float_model(tmp_path)
    make_tiny("llama", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelInvalidError, match=r"expected tokenizer\.json"):
        load_float_model(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelInvalidError, match=r"config\.json"):
        load_float_model(tmp_path)


def test_tensors_of_another_shape_or_with_nans_are_refused(tmp_path: Path, make_tiny: Any) -> None:
    """A checkpoint that contradicts its configuration is found out when a tensor is read."""
    from safetensors.numpy import load_file, save_file

    make_tiny("llama", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 3), np.float32)
    tensors["model.norm.weight"] = np.full(32, np.nan, np.float32)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path)
    found = load_float_model(tmp_path).tensors
    with pytest.raises(ModelInvalidError, match=r"layers\.0\.up\.weight: expected shape \(56, 32\), found \(3, 3\)"):
        found["layers.0.up.weight"]
    with pytest.raises(ModelInvalidError, match="finite"):
        found["final_norm.weight"]
    with pytest.raises(ModelInvalidError, match=r"expected a tensor layers\.1"):
        found["layers.1.up.weight"]


def test_licence_is_read_from_the_card_or_the_licence_file(tmp_path: Path, make_tiny: Any) -> None:
    """The model card is asked first, then the licence's first line."""
    make_tiny("llama", tmp_path)
    assert load_float_model(tmp_path).licence == "unknown"
    (tmp_path / "LICENSE").write_text("\n  Apache License\n", encoding="utf-8")
    assert load_float_model(tmp_path).licence == "Apache License"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert load_float_model(tmp_path).licence == "mit"
