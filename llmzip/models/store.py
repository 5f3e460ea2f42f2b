"""The models on this machine: those that were added, in the user's data directory, and those in the package.

Each lies in a folder of its own with a card. Adding works in a temporary folder and ends in one rename, so
that an interrupted addition leaves no model behind. Reading lists needs cards only.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llmzip.errors import ModelError, ModelInvalidError, ModelNotFoundError
from llmzip.models.card import CARD_FILE, Card
from llmzip.models.registry import KNOWN_MODELS, Origin

BUNDLED = Path(__file__).parent / "bundled"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHORTEST_ID = 4
CODEBOOK_FILE = "codebook.cond"


@dataclass(frozen=True)
class StoredModel(Card):
    """A model on this machine: its card, and where it lies.

    Attributes:
        bundled: whether it came with the program.
        path: the artefact's folder.
    """

    bundled: bool
    path: Path

    @property
    def codebook(self) -> Path | None:
        """The file of the model's own conditioners, if it has any."""
        path = self.path / CODEBOOK_FILE
        return path if path.is_file() else None


def data_directory() -> Path:
    """Where llmzip keeps what the user adds: `LLMZIP_HOME`, or the system's place for such data."""
    if home := os.environ.get("LLMZIP_HOME"):
        return Path(home)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "llmzip"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "llmzip"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "llmzip"


def models_directory() -> Path:
    """The folder of the added models."""
    return data_directory() / "models"


def list_models() -> list[StoredModel]:
    """All models, the bundled ones first, then by name. A folder whose card cannot be read is left out."""
    found = []
    for directory, bundled in ((BUNDLED, True), (models_directory(), False)):
        for path in sorted(directory.glob(f"*/{CARD_FILE}")):
            if not path.parent.name.startswith("."):
                try:
                    found.append(_stored(path.parent, bundled=bundled))
                except ModelInvalidError:
                    continue
    return sorted(found, key=lambda model: (not model.bundled, model.name))


def find_model(reference: str) -> StoredModel:
    """The model of that name, else of that id or beginning of an id (four digits or more), else in that folder.

    Raises:
        ModelNotFoundError: there is none, or a beginning of an id fits several.
    """
    models = list_models()
    for model in models:
        if model.name == reference:
            return model
    fitting = {model.id: model for model in models if model.id.startswith(reference.lower())}
    if len(reference) >= _SHORTEST_ID and fitting:
        if len(fitting) > 1:
            names = ", ".join(model.name for model in fitting.values())
            raise ModelNotFoundError(f"model {reference}: expected the beginning of one id, found several: {names}")
        return next(iter(fitting.values()))
    if (Path(reference) / CARD_FILE).is_file():
        return _stored(Path(reference), bundled=False)
    raise ModelNotFoundError(
        f"model {reference}: expected one of {_names(models)}, found none; {_how_to_add(reference)}"
    )


def find_bundled() -> StoredModel:
    """The model inside the package, which new archives use unless told otherwise."""
    for model in list_models():
        if model.bundled:
            return model
    raise ModelNotFoundError(f"bundled model: expected one in {BUNDLED}, found none; install llmzip again")


def find_by_id(prefix: bytes) -> StoredModel:
    """The model whose id begins with `prefix`, as an archive names it; `ModelNotFoundError` says how to get it."""
    models = list_models()
    for model in models:
        if bytes.fromhex(model.id).startswith(prefix):
            return model
    for known in KNOWN_MODELS.values():
        if known.wheel and known.wheel.artefact_id == prefix.hex():
            raise ModelNotFoundError(
                f"archive needs model {prefix.hex()} ({known.name}), found {_names(models)}; "
                f"run: llmzip models add {known.name} --from {Origin.INDEX}"
            )
    raise ModelNotFoundError(
        f"archive needs model {prefix.hex()}, found {_names(models)}; add the model that made the archive "
        f"(`llmzip models add`, known names: {', '.join(KNOWN_MODELS)}) or copy its folder into {models_directory()}"
    )


def add_model(
    reference: str,
    name: str | None = None,
    accept: Callable[[str], bool] = lambda _: False,
    progress: Callable[[str], None] | None = None,
    origin: Origin = Origin.ANY,
) -> StoredModel:
    """Fetch a model, convert it and keep it; one that is here under another name is returned as it is.

    Args:
        reference: a known name, a folder or file of a public model, an artefact's folder, or `owner/name` on the hub.
        name: what to call it; default: the known name, or the last part of the path.
        accept: shown licence and terms of what would be downloaded; False ends it.
        progress: told in a few words what is being done.
        origin: of a known name, which of its sources.

    Raises:
        ModelNotFoundError: no source has it.
        ModelInvalidError: it cannot be converted.
        ModelError: the terms were not accepted, or the name belongs to another model.
    """
    name = name or _default_name(reference)
    _check_name(name)
    tell = progress or (lambda _: None)
    directory = models_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=directory) as temporary:
        folder = Path(temporary) / "artefact"
        folder.mkdir()
        source = Path(reference).expanduser()
        if reference not in KNOWN_MODELS and (source / "spec.json").is_file():
            card = _copy(source, folder, name)
        else:
            card = _convert(reference, Path(temporary), folder, name, accept, tell, origin)
        return _keep(card, folder, directory / card.id)


def remove_model(reference: str) -> StoredModel:
    """Remove an added model and return what it was; bundled models stay."""
    model = find_model(reference)
    if model.path.parent != models_directory():
        raise ModelError(f"model {model.name}: expected one that was added, found {model.path}, which stays")
    doomed = model.path.with_name(f".removing-{model.id}")
    model.path.rename(doomed)
    shutil.rmtree(doomed)
    return model


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name: expected lower-case letters, digits, dots, dashes, found {name!r}; pass --name")
    for model in list_models():
        if model.name == name:
            raise ModelError(
                f"model name {name}: expected a free one, found it taken by {model.id[:10]}; remove that or pass --name"
            )


def _keep(card: Card, folder: Path, target: Path) -> StoredModel:
    for model in list_models():
        if model.id == card.id:
            return model
    card.write(folder)
    folder.rename(target)
    return _stored(target, bundled=False)


def _convert(
    reference: str,
    downloads: Path,
    folder: Path,
    name: str,
    accept: Callable[[str], bool],
    tell: Callable[[str], None],
    origin: Origin,
) -> Card:
    from llmzip.models.convert import load_float_model
    from llmzip.models.convert.float_model import count_parameters
    from llmzip.models.quantise import build_artefact
    from llmzip.models.sources import fetch

    fetched = fetch(reference, downloads, accept, tell, origin)
    tell("reading the model")
    model = load_float_model(fetched.path)
    identity = build_artefact(model, folder, tell)
    licence = fetched.licence or model.licence
    return Card(
        identity, name, model.spec.family, licence, fetched.source, count_parameters(model), _size_bytes(folder)
    )


def _copy(source: Path, folder: Path, name: str) -> Card:
    """An artefact made elsewhere: checked against its id, and copied."""
    from llmzip.models.artefact import load_artefact

    for path in source.iterdir():
        if path.is_file() and path.name != CARD_FILE:
            shutil.copyfile(path, folder / path.name)
    artefact = load_artefact(folder)
    known = Card.read(source) if (source / CARD_FILE).is_file() else None
    return Card(
        id=artefact.id,
        name=name,
        family=artefact.spec.family,
        licence=known.licence if known else "unknown",
        source=known.source if known else str(source),
        parameters=known.parameters if known else sum(m.q.size for m in artefact.parameters.matrices.values()),
        size_bytes=_size_bytes(folder),
    )


def _stored(path: Path, *, bundled: bool) -> StoredModel:
    return StoredModel(**asdict(Card.read(path)), bundled=bundled, path=path)


def _default_name(reference: str) -> str:
    if reference in KNOWN_MODELS:
        return reference
    return Path(reference).expanduser().resolve().name.removesuffix(".gguf").lower()


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != CARD_FILE)


def _names(models: list[StoredModel]) -> str:
    return ", ".join(f"{model.name} ({model.id[:10]})" for model in models) or "no models"


def _how_to_add(reference: str) -> str:
    if reference in KNOWN_MODELS:
        return f"run: llmzip models add {reference}"
    return f"known names that can be added: {', '.join(KNOWN_MODELS)}"
