"""Where conditioner files are: named by the user, kept beside models, or in the user's data directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from llmzip.conditioning.conditioner_file import SUFFIX, ConditionerFile, read_conditioner_file
from llmzip.conditioning.network_file import NETWORK_FOLDERS
from llmzip.errors import ConditionerInvalidError, ConditionerMissingError
from llmzip.models.store import BUNDLED, StoredModel, data_directory, list_models, models_directory


def conditioners_directory() -> Path:
    """The folder where archives' conditioners are looked for by their names."""
    return data_directory() / "conditioners"


# Where networks of learned hyperpriors are looked for.
NETWORK_FOLDERS.append(lambda: (BUNDLED, models_directory(), conditioners_directory()))


def find_file(reference: str) -> ConditionerFile:
    """The conditioners in a file, or in one of that name in the user's folder.

    Raises:
        ConditionerMissingError: there is none.
        ConditionerInvalidError: it is damaged.
    """
    for path in (
        Path(reference),
        conditioners_directory() / reference,
        conditioners_directory() / f"{reference}{SUFFIX}",
    ):
        if path.is_file():
            return read_conditioner_file(path)
    raise ConditionerMissingError(
        f"conditioners {reference}: expected a file, there or in {conditioners_directory()}, found none"
    )


def find_by_name(name: bytes, artefact_id: str) -> ConditionerFile:
    """The conditioners whose id begins with `name`, as an archive has it, for one model.

    Raises:
        ConditionerMissingError: there are none; the message says how to get them.
    """
    for path in _known_files():
        try:
            found = read_conditioner_file(path)
        except ConditionerInvalidError:
            # A damaged file beside the right one is no reason to refuse the archive.
            continue
        if found.artefact_id == artefact_id and found.id.startswith(name):
            return found
    raise ConditionerMissingError(
        f"archive needs conditioners {name.hex()}, found none of that name; pass their file by -D, or copy it into "
        f"{conditioners_directory()}"
    )


def find_pair(
    pair_id: bytes, models: Sequence[StoredModel] | None = None
) -> tuple[StoredModel, ConditionerFile] | None:
    """The model and its codebook whose id begins with `pair_id`, among `models` or all; None if there is none."""
    for model in list_models() if models is None else models:
        if model.codebook is not None:
            codebook = read_conditioner_file(model.codebook)
            if codebook.id.startswith(pair_id):
                return model, codebook
    return None


def _known_files() -> Iterator[Path]:
    yield from sorted(conditioners_directory().glob(f"*{SUFFIX}"))
    yield from (model.codebook for model in list_models() if model.codebook is not None)
