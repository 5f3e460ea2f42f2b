from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmzip.errors import ModelInvalidError, ModelNotFoundError
from llmzip.exact.spec import Selection
from llmzip.models.artefact import Artefact, Settings, artefact_id, load_artefact, save_artefact

SELECTION = {"cutoff": 5, "budgets": [], "protect_first": True, "mask_self": False}


@pytest.fixture
def folder(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of a small artefact, to be damaged."""
    return Path(shutil.copytree(tiny_home / "models" / "tiny", tmp_path / "copy"))


def test_what_is_saved_is_loaded(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """With the same id, and every number the same."""
    parts = (tiny_artefact.settings, tiny_artefact.parameters, tiny_artefact.vocabulary, tiny_artefact.tokenizer_json)
    assert save_artefact(tmp_path, *parts) == tiny_artefact.id
    again = load_artefact(tmp_path)
    assert (again.id, again.settings) == (tiny_artefact.id, tiny_artefact.settings)
    for name, matrix in tiny_artefact.parameters.matrices.items():
        found = again.parameters.matrices[name]
        assert np.array_equal(found.q, matrix.q)
        assert np.array_equal(found.scale, matrix.scale)
        assert found.limit == matrix.limit == tiny_artefact.settings.limit(name)
    assert again.parameters.vectors.keys() == tiny_artefact.parameters.vectors.keys()


def test_the_id_is_the_hash_that_the_specification_says() -> None:
    """ARITHMETIC.md, section 8, written out for three parts."""
    array = np.array([[1, -2, 3]], np.int32)
    parts = [
        (b'["spec.json","text",2]', b"{}"),
        (b'["tokenizer.json","text",3]', b"\xe2\x98\x83"),
        (b'["a.q","int32[1, 3]",12]', bytes([1, 0, 0, 0, 254, 255, 255, 255, 3, 0, 0, 0])),
    ]
    content = b"".join(len(head).to_bytes(4, "little") + head + body for head, body in parts)
    assert artefact_id("{}", "☃", {"a.q": array}) == hashlib.sha256(content).hexdigest()
    assert artefact_id("{}", "☃", {"a.q": array.astype(">i4")}) == hashlib.sha256(content).hexdigest()


def test_any_change_changes_the_id(folder: Path, tiny_artefact: Artefact) -> None:
    """Of the settings, the tokenizer, or a number."""
    from safetensors.numpy import load_file, save_file

    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text + " ", encoding="utf-8")
    first = load_artefact(folder).id
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    tensors = load_file(folder / "tensors.safetensors")
    tensors["layers.0.q.q"][0, 0] ^= 1
    save_file(tensors, folder / "tensors.safetensors")
    assert len({first, load_artefact(folder).id, tiny_artefact.id}) == 3


@pytest.mark.parametrize("name", ["spec.json", "tensors.safetensors", "tokenizer.json"])
def test_a_folder_without_one_of_the_files_is_named(name: str, folder: Path) -> None:
    """As a model that is not there."""
    (folder / name).unlink()
    with pytest.raises(ModelNotFoundError, match=str(folder)):
        load_artefact(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    """A matrix without its scales."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "tensors.safetensors")
    del tensors["head.scale"]
    save_file(tensors, folder / "tensors.safetensors")
    with pytest.raises(ModelInvalidError, match=r"head\.scale"):
        load_artefact(folder)


@pytest.mark.parametrize("name", ["spec.json", "tensors.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b"[" * 100_000])
def test_damaged_files_are_refused(name: str, content: bytes, folder: Path) -> None:
    """With the error of an invalid model."""
    (folder / name).write_bytes(content)
    with pytest.raises(ModelInvalidError):
        load_artefact(folder)


def test_another_version_of_the_arithmetic_is_refused(folder: Path) -> None:
    """By number."""
    fields = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    (folder / "spec.json").write_text(json.dumps(fields | {"arithmetic": 2}), encoding="utf-8")
    with pytest.raises(ModelInvalidError, match="expected arithmetic version 1, found 2"):
        load_artefact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngrams": {"tables": 1, "rows": 16}}, r"matrix ngram2: expected shape \(16, 256\), found None"),
        ({"ngrams": {"tables": 2, "rows": 16}}, r"matrix ngram2: expected shape \(16, 128\), found None"),
        ({"ngrams": {"tables": 2, "rows": 17}}, "ngrams rows must be a power of two, found 17"),
        ({"selection": {}}, "selection must have budgets, cutoff, mask_self, protect_first, found"),
        ({"selection": None}, "selection must be of type dict, found None"),
        ({"selection": SELECTION | {"cutoff": 0}}, "selection cutoff must be in 1..524288, found 0"),
        ({"selection": SELECTION | {"budgets": [3, 4]}}, "selection budgets must have 1 entries or none, found 2"),
    ],
    ids=str,
)
def test_selection_and_ngrams_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, folder: Path) -> None:
    """In spec.json, and tables that it asks for and that are not there."""
    _change_spec(folder, changes)
    with pytest.raises(ModelInvalidError, match=message):
        load_artefact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"two_limbs": 5}, r"spec\.json: expected two_limbs to be a list of names, found 5"),
        ({"two_limbs": "embed"}, "found 'embed'"),
        ({"two_limbs": ["o", 7]}, r"found \['o', 7\]"),
        ({"two_limbs": None}, "found None"),
        ({"two_limbs": {"o": 1}}, "found {'o': 1}"),
        ({"arithmetic": True}, "expected arithmetic version 1, found True"),
        ({"arithmetic": 1.0}, "expected arithmetic version 1, found 1.0"),
        ({"model": 7}, "model must be of type dict, found 7"),
    ],
    ids=str,
)
def test_settings_of_other_types_are_refused(changes: dict[str, Any], message: str, folder: Path) -> None:
    """Each by its name."""
    fields = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    (folder / "spec.json").write_text(json.dumps(fields | changes), encoding="utf-8")
    with pytest.raises(ModelInvalidError, match=message):
        load_artefact(folder)


def test_selection_is_a_part_of_the_id(folder: Path, tiny_artefact: Artefact) -> None:
    """All of it: cutoff, budgets and rules decide what is computed."""
    ids = [tiny_artefact.id]
    for selection in (Selection(5), Selection(6), Selection(6, (9,)), Selection(6, (9,), mask_self=True)):
        _change_spec(folder, {"selection": dataclasses.asdict(selection)})
        artefact = load_artefact(folder)
        assert artefact.spec.selection == selection
        ids.append(artefact.id)
    assert len(set(ids)) == len(ids)


def _change_spec(folder: Path, changes: dict[str, Any]) -> None:
    fields = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    fields["model"] |= changes
    (folder / "spec.json").write_text(json.dumps(fields), encoding="utf-8")


def test_limits_go_by_the_last_part_of_a_name(tiny_artefact: Artefact) -> None:
    """Two limbs where the settings say so."""
    settings = Settings(tiny_artefact.spec, ("o", "embed"))
    assert [settings.limit(name) for name in ("embed", "layers.3.o", "layers.3.down", "head")] == [8191, 8191, 127, 127]
    assert Settings.from_json(settings.to_json()).to_json() == settings.to_json()
