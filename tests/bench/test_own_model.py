# ruff: noqa: TID253
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.float_model import FloatModel
from bench.own_model import OwnModel
from llmzip.errors import ConfigError
from llmzip.exact.spec import ModelSpec
from llmzip.models.convert import load_float_model
from llmzip_training.export import export_model
from llmzip_training.load import load_model
from llmzip_training.model import LanguageModel, ModelConfig

IDS = torch.tensor([[1, 5, 39, 2, 2, 7]])
TOKENIZER = (
    '{"version": "1.0", "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0}, "merges": []}, '
    '"added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true, "single_word": false, '
    '"lstrip": false, "rstrip": false, "normalized": false}]}'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small selective model, exported."""
    config = ModelConfig(
        300, 32, 2, 4, 2, 48, 24, mlp="plain", activation="relu2", attention="selective", ngram_tables=2, ngram_rows=16
    )
    torch.manual_seed(3)
    export_model(LanguageModel(config), TOKENIZER, tmp_path)
    return tmp_path


@pytest.fixture
def spec(folder: Path) -> ModelSpec:
    """What the converter reads of it."""
    return load_float_model(folder).spec


def test_logits_are_those_of_the_trained_model(folder: Path, spec: ModelSpec) -> None:
    """Of the last tokens only, as many as asked for."""
    with torch.inference_mode():
        found = OwnModel(spec, folder)(input_ids=IDS, use_cache=False, logits_to_keep=4).logits
        # Sums of 48 products at most, each below 1, taken in another order: 48 * 2**-24 and some layers.
        assert torch.allclose(found, load_model(folder)(IDS)[:, 2:], rtol=0, atol=1e-5)


def test_own_family_needs_no_source(spec: ModelSpec) -> None:
    """Without one, it is a new model of the same sizes."""
    FloatModel(spec, None, 1)
    with torch.inference_mode():
        assert OwnModel(spec, None)(input_ids=IDS, use_cache=False, logits_to_keep=1).logits.shape == (1, 1, 300)


def test_model_of_other_sizes_is_refused(folder: Path, spec: ModelSpec) -> None:
    """The float model must be the one that the artefact was made of."""
    with pytest.raises(ConfigError, match="float model"):
        OwnModel(replace(spec, n_layers=3), folder)
