# ruff: noqa: TID253
"""What the commands that train conditioners work on: a frozen model, texts, a folder; imports torch, loaded lazily."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmzip.allocator import keep_freed_memory
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.store import find_bundled, find_model
from llmzip_training.files import write_whole
from llmzip_training.frozen import FrozenModel, load_frozen
from llmzip_training.streams import TokenStream, file_stream, shard_streams


@dataclass(frozen=True)
class Job:
    """Where, on what and for which model.

    Attributes:
        out: folder of the run; continued if it holds checkpoints.
        model: name, id or folder; `None` for the bundled one.
        text: a file that is to be compressed, or else
        data: folder of shards, or else
        train, held_out: files.
        n_bytes: of training text that is taken from shards.
        variants: change one of their documents in so many, see `with_variants`; 0 for none.
        device: a torch device; `None` for a GPU where there is one.
        threads: of the CPU; `None` for torch's choice.
        pause_after_s: seconds from now until the run pauses.
    """

    out: Path
    model: str | None = None
    text: Path | None = None
    data: Path | None = None
    train: tuple[Path, ...] = ()
    held_out: tuple[Path, ...] = ()
    n_bytes: int = 8_000_000
    variants: int = 0
    device: str | None = None
    threads: int | None = None
    pause_after_s: float = float("inf")

    def __post_init__(self) -> None:
        """Refuse no text, and text from several places."""
        places = [bool(self.text), bool(self.data), bool(self.train or self.held_out)]
        if sum(places) != 1 or bool(self.train) != bool(self.held_out):
            raise ConfigError("training text: expected --text, --data, or --train with --held-out, and one of them")

    def load_model(self) -> tuple[Artefact, FrozenModel]:
        """The model, exact and in float; memory and threads of this process are set for training."""
        keep_freed_memory()
        if self.threads:
            torch.set_num_threads(self.threads)
        artefact = load_named(self.model)
        return artefact, load_frozen(artefact, self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def load_texts(self, artefact: Artefact) -> tuple[TokenStream, TokenStream | None]:
        """What is trained on, and what is held out, if that is not the text itself."""
        return (file_stream([self.text], artefact), None) if self.text else self._load_pair(artefact)

    def load_shared_texts(self, artefact: Artefact, name: str) -> tuple[TokenStream, TokenStream]:
        """What is trained on, and what is held out, for what is never of one text; messages call it `name`.

        Raises:
            ConfigError: there is but one.
        """
        if self.text:
            raise ConfigError(f"{name}: expected --data, or --train with --held-out, found --text")
        return self._load_pair(artefact)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write `report.json`, and show it."""
        text = json.dumps(report, indent=1)
        write_whole(self.out / "report.json", f"{text}\n".encode())
        print(text)

    def _load_pair(self, artefact: Artefact) -> tuple[TokenStream, TokenStream]:
        if self.data:
            return shard_streams(self.data, artefact, self.n_bytes, variants=self.variants)
        return file_stream(self.train, artefact), file_stream(self.held_out, artefact)


def load_named(model: str | None) -> Artefact:
    """The artefact of a model by its name, id or folder; of the bundled one for `None`."""
    return load_artefact((find_model(model) if model else find_bundled()).path)
