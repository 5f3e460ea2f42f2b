# ruff: noqa: TID253
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmzip_training.export import export_model
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model in which no tensor is at its initial zeros or ones."""
    torch.manual_seed(0)
    model = LanguageModel(
        ModelConfig(vocab_size=300, width=32, n_layers=3, n_heads=4, n_kv_heads=2, ffn_width=48, context=40)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_exported_folder_gives_the_same_logits_in_transformers(model: LanguageModel, tmp_path: Path) -> None:
    """Names, layout, rotary pairing and settings mean to others what they mean here."""
    from transformers import AutoModelForCausalLM

    tokenizer = train_tokenizer(iter(["some text\n"]), 300)
    export_model(model, tokenizer.to_str(), tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.5


def test_prediction_depends_on_earlier_tokens_only(model: LanguageModel) -> None:
    """A decoder can compute what the encoder computed."""
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(2))
    changed = ids.clone()
    changed[0, 20:] = 7
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[0, :20], model(changed)[0, :20])
