"""Puts a trained model into the package: `python -m llmzip_training.bundle FOLDER NAME`.

FOLDER is what `export` wrote. The artefact replaces whatever is bundled under NAME; its card for
people, `README.md`, is written by hand and stays.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import llmzip.models
from llmzip.errors import LlmzipError
from llmzip.models.card import CARD_FILE, Card
from llmzip.models.convert import load_float_model
from llmzip.models.convert.float_model import count_parameters
from llmzip.models.quantise import build_artefact

LICENCE = "Apache-2.0"


def bundle(source: Path, name: str, bundled: Path) -> Card:
    """Convert the Hugging Face folder `source` to `bundled / name` and return its card."""
    model = load_float_model(source)
    target = bundled / name
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundled) as temporary:
        folder = Path(temporary)
        identity = build_artefact(model, folder)
        files = list(folder.iterdir())
        size = sum(path.stat().st_size for path in files)
        card = Card(identity, name, model.spec.family, LICENCE, "trained by llmzip", count_parameters(model), size)
        card.write(folder)
        for path in [*files, folder / CARD_FILE]:
            path.chmod(0o644)
            path.replace(target / path.name)
    return card


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and bundle; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="exported model")
    parser.add_argument("name", help="name of the bundled model")
    chosen = parser.parse_args(arguments)
    try:
        card = bundle(chosen.folder, chosen.name, Path(next(iter(llmzip.models.__path__))) / "bundled")
    except LlmzipError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{card.name} {card.id} {card.size_bytes} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
