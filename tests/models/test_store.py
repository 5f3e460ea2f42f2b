from __future__ import annotations

import hashlib
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.errors import ModelError, ModelInvalidError, ModelNotFoundError
from llmzip.models import store
from llmzip.models.card import Card
from llmzip.models.registry import KNOWN_MODELS

Add = Callable[[str], store.StoredModel]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory and a package without bundled models."""
    monkeypatch.setenv("LLMZIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    return tmp_path / "home"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_tiny: Any) -> Add:
    """Add the tiny Llama under a name; its artefact is a stand-in of which only the id matters."""
    make_tiny("llama", tmp_path / "tiny")
    quantise = types.ModuleType("llmzip.models.quantise")

    def build_artefact(model: Any, folder: Path, progress: Callable[[str], None]) -> str:
        progress("quantising")
        (folder / "spec.json").write_text(model.spec.to_json(), encoding="utf-8")
        return hashlib.sha256((tmp_path / "tiny" / "config.json").read_bytes()).hexdigest()

    quantise.build_artefact = build_artefact  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llmzip.models.quantise", quantise)
    return lambda name: store.add_model(str(tmp_path / "tiny"), name)


def _card(folder: Path, id_: str, name: str) -> None:
    folder.mkdir(parents=True)
    Card(id_, name, "llama", "MIT", "here", 1, 2).write(folder)


def test_an_added_model_is_listed_found_and_removed(add: Add, home: Path) -> None:
    """By name, by the beginning of its id, by an archive's bytes and by its folder."""
    model = add("tiny")
    assert store.list_models() == [model]
    assert (model.name, model.family, model.bundled, model.path) == ("tiny", "llama", False, home / "models" / model.id)
    assert model.parameters == 384 * 32 + 3 * (4 * 32 * 32 - 2 * 32 * 16 + 3 * 32 * 56 + 2 * 32) + 32
    assert model.size_bytes == (model.path / "spec.json").stat().st_size
    for reference in ("tiny", model.id[:6], str(model.path)):
        assert store.find_model(reference) == model
    assert store.find_by_id(bytes.fromhex(model.id)[:5]) == model
    assert store.remove_model("tiny") == model
    assert store.list_models() == []
    assert list((home / "models").iterdir()) == []


def test_a_taken_name_is_refused_and_the_same_model_is_kept_once(add: Add) -> None:
    """A name means one model; an id too."""
    model = add("tiny")
    with pytest.raises(ModelError, match="expected a free one"):
        add("tiny")
    assert add("other") == model


def test_a_failed_addition_leaves_nothing(add: Add, home: Path, tmp_path: Path) -> None:
    """Neither a model nor temporary files remain."""
    add("tiny")
    before = sorted((home / "models").iterdir())
    (tmp_path / "tiny" / "tokenizer.json").unlink()
    with pytest.raises(ModelInvalidError, match="tokenizer"):
        add("other")
    assert sorted((home / "models").iterdir()) == before


def test_unfit_names_are_refused_before_any_work() -> None:
    """A name is a word that a shell leaves alone."""
    for name in ("Two Words", "../up", ".hidden"):
        with pytest.raises(ModelError, match="model name: expected"):
            store.add_model("gpt2", name)


def test_the_default_name_is_the_last_part_of_the_source(add: Add, tmp_path: Path) -> None:
    """A folder gives its own name."""
    assert add is not None
    assert store.add_model(str(tmp_path / "tiny")).name == "tiny"


def test_bundled_models_come_first_and_stay(tmp_path: Path, home: Path) -> None:
    """What came with the program is listed first and cannot be removed."""
    _card(tmp_path / "bundled" / "zeta", "a" * 64, "zeta")
    _card(home / "models" / ("b" * 64), "b" * 64, "alpha")
    assert [(model.name, model.bundled) for model in store.list_models()] == [("zeta", True), ("alpha", False)]
    with pytest.raises(ModelError, match="which stays"):
        store.remove_model("zeta")


def test_an_ambiguous_id_and_a_missing_model_say_what_there_is(home: Path) -> None:
    """The message names the candidates, or how to add a known model."""
    _card(home / "models" / "one", "abcd1" + "0" * 59, "one")
    _card(home / "models" / "two", "abcd2" + "0" * 59, "two")
    with pytest.raises(ModelNotFoundError, match="found several: one, two"):
        store.find_model("abcd")
    with pytest.raises(ModelNotFoundError, match=r"found none; run: llmzip models add gpt2"):
        store.find_model("gpt2")
    with pytest.raises(ModelNotFoundError, match=r"archive needs model 0102030405, found one \(abcd100000\)"):
        store.find_by_id(bytes([1, 2, 3, 4, 5]))
    smollm2 = KNOWN_MODELS["smollm2-135m"].wheel
    assert smollm2 is not None
    with pytest.raises(ModelNotFoundError, match=r"run: llmzip models add smollm2-135m --from index$"):
        store.find_by_id(bytes.fromhex(smollm2.artefact_id))


def test_damaged_cards_are_left_out(home: Path) -> None:
    """One bad folder does not hide the others."""
    _card(home / "models" / "one", "a" * 64, "one")
    for number, text in enumerate(("{", "{}", "[]", '{"id": 1}')):
        folder = home / "models" / f"bad{number}"
        folder.mkdir()
        (folder / "card.json").write_text(text, encoding="utf-8")
    _card(home / "models" / "bad-id", "../" + "a" * 61, "bad")
    assert [model.name for model in store.list_models()] == ["one"]


def test_the_data_directory_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMZIP_HOME first, then what each system has for it."""
    monkeypatch.delenv("LLMZIP_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    found = {}
    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        found[platform] = store.data_directory()
    assert found["linux"] == Path("/data/llmzip")
    assert found["darwin"] == Path.home() / "Library" / "Application Support" / "llmzip"
    assert found["win32"] == Path("/local/llmzip")


def test_listing_loads_no_heavy_package() -> None:
    """`llmzip models list` starts fast: cards are read with the standard library."""
    code = "import sys, llmzip.models.store as s; s.list_models(); print(sorted({'numpy', 'torch'} & set(sys.modules)))"
    root = Path(store.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"
