# ruff: noqa: TID253
from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llmzip.errors import ConfigError, DiskFullError
from llmzip_training.export import export_folder, export_model
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


@pytest.fixture(scope="module")
def selective(model: LanguageModel) -> LanguageModel:
    """The same with selective attention."""
    selective = LanguageModel(replace(model.config, attention="selective"))
    selective.load_state_dict(model.state_dict())
    return selective


@contextmanager
def _largest_file(n_bytes: int) -> Iterator[None]:
    """As on a disk with little room left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1000, 300_000], ids=["weights", "tokenizer"])
def test_full_disk_leaves_the_export_from_before(model: LanguageModel, tmp_path: Path, room: int) -> None:
    """Wherever the room ends: one error of ours, no file changed, none left over."""
    export_model(model, "{}", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = LanguageModel(model.config)
    with _largest_file(room), pytest.raises(DiskFullError, match=str(tmp_path)):
        export_model(other, " " * 400_000, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_is_exported_again_with_budgets(selective: LanguageModel, tmp_path: Path) -> None:
    """The same weights and tokenizer, other pruning."""
    export_model(selective, "{}\r\n", tmp_path / "run" / "hf")
    export_folder(tmp_path / "run", tmp_path / "pruned", (0, 16, 24), 12.5)
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["selection"] == {
        "cutoff": 12.5,
        "budgets": [0, 16, 24],
    }
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "pruned" / name).read_bytes() == (tmp_path / "run" / "hf" / name).read_bytes()


@pytest.mark.parametrize(
    ("budgets", "cutoff", "message"),
    [
        ((16,), 16.0, "expected 3 budgets or none, found 1"),
        ((16, -1, 16), 16.0, "expected budgets of 0 or more tokens"),
        ((16, 2**24, 16), 16.0, "expected budgets of at most 16777215 tokens, found 16777216"),
        ((), 0.0, "expected a cutoff above 0 nats, found 0"),
        ((), 0.0001, "expected a cutoff from 0.000976562 to 512 nats, found 0.0001"),
        ((), 513.0, "expected a cutoff from .* to 512 nats, found 513"),
        ((), float("nan"), "expected a cutoff"),
    ],
)
def test_pruning_that_the_engine_refuses_is_not_exported(
    selective: LanguageModel, tmp_path: Path, budgets: tuple[int, ...], cutoff: float, message: str
) -> None:
    """Nothing is written."""
    with pytest.raises(ConfigError, match=message):
        export_model(selective, "{}", tmp_path / "out", budgets=budgets, cutoff=cutoff)
    assert not (tmp_path / "out").exists()


def test_plain_model_has_no_budgets(model: LanguageModel, tmp_path: Path) -> None:
    """They would be ignored."""
    with pytest.raises(ConfigError, match="expected a selective model"):
        export_model(model, "{}", tmp_path / "out", budgets=(8, 8, 8))
