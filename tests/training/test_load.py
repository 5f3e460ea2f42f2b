# ruff: noqa: TID253
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from llmzip.errors import ConfigError, FileError, FileMissingError
from llmzip_training.checkpoint import save_checkpoint
from llmzip_training.export import export_model
from llmzip_training.load import find_tokenizer, load_model
from llmzip_training.model import LanguageModel, ModelConfig

RandomModel = Callable[[ModelConfig], LanguageModel]

SELECTIVE = ModelConfig(
    40, 32, 2, 3, 3, 48, 24, mlp="plain", activation="relu2", attention="selective", protect_first=False,
    mask_self=True, ngram_tables=2, ngram_rows=16, rotary_base=500.0, norm_eps=1e-4, head_width=10,
)  # fmt: skip
LLAMA = ModelConfig(40, 32, 2, 4, 2, 48, 24, rotary_base=500.0, norm_eps=1e-4)
IDS = torch.tensor([[1, 5, 39, 2, 2, 7]])


@pytest.mark.parametrize("config", [SELECTIVE, LLAMA])
def test_exported_model_loads_as_it_was(config: ModelConfig, random_model: RandomModel, tmp_path: Path) -> None:
    """Configuration and logits, from its folder and from that of its run."""
    model = random_model(config)
    export_model(model, "{}", tmp_path / "hf")
    for path in (tmp_path, tmp_path / "hf"):
        loaded = load_model(path)
        assert loaded.config == config
        with torch.no_grad():
            assert torch.equal(loaded(IDS), model(IDS))
        assert find_tokenizer(path) == tmp_path / "hf" / "tokenizer.json"


def test_checkpoint_loads_as_it_was(random_model: RandomModel, tmp_path: Path) -> None:
    """By its own path, and by the folder of its run, which gives the newest."""
    old, new = random_model(replace(SELECTIVE, vocab_size=50)), random_model(SELECTIVE)
    for step, model in ((10, old), (20, new)):
        state = {"run": {"model": asdict(model.config)}, "model": model.state_dict()}
        path = save_checkpoint(state, tmp_path, step, keep=2)
    assert load_model(path).config == load_model(tmp_path).config == SELECTIVE
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(IDS), new(IDS))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert find_tokenizer(path) == tmp_path / "tokenizer.json"


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """Empty, missing, or without a tokenizer."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileMissingError, match=r"expected config.json, hf/config.json or a checkpoint"):
            load_model(path)
    with pytest.raises(FileMissingError, match=r"expected tokenizer.json"):
        find_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "found 'gpt2'"),
        ({"llmzip": {**asdict(SELECTIVE), "depth": 3}}, r"config\.json: llmzip: expected only .*, found depth"),
        ({"llmzip": asdict(replace(SELECTIVE, n_layers=3))}, "expected the tensors .*layers.2"),
    ],
)
def test_model_that_is_none_of_ours_is_refused(
    config: dict[str, object], message: str, random_model: RandomModel, tmp_path: Path
) -> None:
    """Another kind, another field, or another shape than the tensors have."""
    export_model(random_model(SELECTIVE), "{}", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"llmzip": 3}', b'{"model_type": "llama"}'])
def test_damaged_configuration_is_refused(content: bytes, random_model: RandomModel, tmp_path: Path) -> None:
    """By the name of its file."""
    export_model(random_model(SELECTIVE), "{}", tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json: (model|llmzip|llama).*: expected"):
        load_model(tmp_path)


def test_value_of_another_type_is_refused(random_model: RandomModel, tmp_path: Path) -> None:
    """It is not found out by what fails later."""
    export_model(random_model(SELECTIVE), "{}", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"llmzip": {**asdict(SELECTIVE), "width": "32"}}))
    with pytest.raises(ConfigError, match=r"config\.json: llmzip\.width: expected an integer, found '32'"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(random_model: RandomModel, tmp_path: Path) -> None:
    """A cut file."""
    export_model(random_model(SELECTIVE), "{}", tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-9])
    with pytest.raises(FileError, match=r"model\.safetensors: weights: expected safetensors"):
        load_model(tmp_path)


def test_checkpoint_without_a_model_is_refused(tmp_path: Path) -> None:
    """Whole, but of something else."""
    path = save_checkpoint({"step": 3}, tmp_path, 3, keep=1)
    with pytest.raises(ConfigError, match=r"step-000000003\.pt: run\.model: expected a table"):
        load_model(path)
