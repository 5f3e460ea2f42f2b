from __future__ import annotations

from pathlib import Path

import pytest

from llmzip.models.artefact import load_artefact
from llmzip.models.card import Card
from llmzip_training.bundle import bundle, main
from llmzip_training.tokenizer import train_tokenizer


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A tiny untrained model, exported."""
    from llmzip_training.export import export_model
    from llmzip_training.model import LanguageModel, ModelConfig

    text = Path(__file__).read_text()
    tokenizer_json = train_tokenizer(iter([text]), 300).to_str()
    config = ModelConfig(vocab_size=300, width=32, n_layers=1, n_heads=2, n_kv_heads=1, ffn_width=48, context=64)
    export_model(LanguageModel(config), tokenizer_json, tmp_path / "exported")
    return tmp_path / "exported"


def test_a_bundled_model_is_a_whole_artefact_and_can_be_replaced(exported: Path, tmp_path: Path) -> None:
    """The folder loads, its card names its id, the hand-written README stays, and nothing else is left behind."""
    target = tmp_path / "bundled"
    (target / "mini").mkdir(parents=True)
    (target / "mini" / "README.md").write_text("by hand")
    for _ in range(2):
        card = bundle(exported, "mini", target)
    assert load_artefact(target / "mini").id == card.id == Card.read(target / "mini").id
    assert sorted(path.name for path in (target / "mini").iterdir()) == [
        "README.md",
        "card.json",
        "spec.json",
        "tensors.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in target.iterdir()] == ["mini"]


def test_a_mistake_is_one_line_and_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a model."""
    assert main([str(tmp_path), "mini"]) > 2
    assert capsys.readouterr().err.startswith("bundle: ")
