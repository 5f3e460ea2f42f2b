"""The card of an artefact: a small file beside it that says for people what it is, so that listing is fast."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from llmzip.errors import ModelInvalidError

CARD_FILE = "card.json"
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Card:
    """What `card.json` holds.

    Attributes:
        id: of the artefact, 64 hexadecimal digits.
        name: short, unique on a machine.
        family: the transformer's family.
        licence: the licence's name.
        source: where the model was read from.
        parameters: how many numbers it was trained with.
        size_bytes: of the artefact's files.
    """

    id: str
    name: str
    family: str
    licence: str
    source: str
    parameters: int
    size_bytes: int

    def write(self, folder: Path) -> None:
        """Put the card into its artefact's folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / CARD_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card in `folder`; `ModelInvalidError` if it is none."""
        path = folder / CARD_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            card = cls(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise ModelInvalidError(f"{path}: expected a model's card, found {error}") from error
        kinds = {name: type(value).__name__ for name, value in fields.items()}
        if not _ID.fullmatch(str(card.id)) or kinds != cls.__annotations__:
            raise ModelInvalidError(f"{path}: expected {cls.__annotations__}, found {fields}")
        return card
