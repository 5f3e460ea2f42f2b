"""Makes `bench` importable without the root on the path, where it would show `kernels` as a package too.

And a small selective model for its commands.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from llmzip.exact.spec import Selection
from llmzip.models.artefact import Artefact, save_artefact
from llmzip.models.card import Card

_bench = ModuleType("bench")
_bench.__path__ = [str(Path(__file__).parents[2] / "bench")]
sys.modules.setdefault("bench", _bench)


@pytest.fixture(scope="session")
def selective_model(tiny_artefact: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model `tiny` with selective attention, at a cutoff of two nats, in its one layer."""
    folder = tmp_path_factory.mktemp("selective")
    spec = replace(tiny_artefact.spec, family="selective", selection=Selection(2048, (40,)))
    settings = replace(tiny_artefact.settings, model=spec)
    parts = (tiny_artefact.parameters, tiny_artefact.vocabulary, tiny_artefact.tokenizer_json)
    identity = save_artefact(folder, settings, *parts)
    Card(identity, "selective", spec.family, "none", "made here", 1, 1).write(folder)
    return folder
