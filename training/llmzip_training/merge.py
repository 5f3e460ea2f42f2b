"""Joins a codebook and a memory to one set: entries that a chunk may choose, beside weights that it brings itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.conditioner_file import ConditionerFile, read_conditioner_file
from llmzip.conditioning.conditioner_set import Basis, ConditionerSet, Text
from llmzip.conditioning.hyperpriors import Coordinates, quantise
from llmzip.conditioning.normal import step_of
from llmzip.conditioning.vectors import Vectors
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip_training.files import write_whole

# The weight of an entry in the direction that it becomes, which is as much smaller: a step of the memory's directions,
# whose weights are about 1, is too fine for whole entries.
ENTRY_WEIGHT = 8
# Of the weights of such directions, which chunks never bring: next to nothing is spent on them.
_NEVER = 0


def merge_files(codebook: Path, memory: Path, artefact: Artefact, out: Path) -> ConditionerSet:
    """Write the set of both files.

    Args:
        codebook: a file of entries with shifts alone, and a chooser.
        memory: a file of a basis without entries, and a chooser.
        artefact: of the model of both.
        out: where to.

    Raises:
        ConfigError: they are not such files.
        ConditionerInvalidError: one is damaged.
    """
    files = [read_conditioner_file(path) for path in (codebook, memory)]
    for path, file in zip((codebook, memory), files, strict=True):
        if file.artefact_id != artefact.id or file.chooser is None:
            raise ConfigError(f"{path}: expected conditioners of model {artefact.id[:10]} with a chooser, found others")
    entries = _entries_of(files[0].unpack_set(artefact.spec), codebook)
    basis = _basis_of(files[1].unpack_set(artefact.spec), memory)
    found = ConditionerSet(basis=merge(entries, basis))
    notes = {"codebook": files[0].notes, "memory": files[1].notes}
    file = ConditionerFile(artefact.id, found.pack(artefact.spec), notes, _chooser_of(files, len(entries)))
    write_whole(out, file.pack())
    return found


def merge(entries: list[Vectors], basis: Basis) -> Basis:
    """A basis with a direction more for each entry, and the entries on it."""
    columns = zip(*(entry.groups for entry in entries), strict=True)
    groups = [_joined(group, column) for group, column in zip(basis.vectors.groups, columns, strict=True)]
    n, d = len(entries), basis.n_directions
    weights = np.zeros((n, d + n), dtype=np.int64)
    weights[np.arange(n), d + np.arange(n)] = ENTRY_WEIGHT
    spreads = np.concatenate([basis.spreads, np.full(n, _NEVER, np.int64)])
    radius = max(basis.radius, ENTRY_WEIGHT)
    return Basis(Vectors(basis.vectors.shape, tuple(groups)), spreads, radius, weights, own=True)


def _joined(group: Coordinates, entries: tuple[Coordinates, ...]) -> Coordinates:
    """The coordinates of all directions, then those of the entries on the same grid."""
    parts = [group.values(), *(entry.values() / np.float32(ENTRY_WEIGHT) for entry in entries)]
    return quantise(np.concatenate(parts), "gaussian", step=float(step_of(group.step_code)))


def _chooser_of(files: list[ConditionerFile], n_entries: int) -> Chooser:
    codebook, memory = (file.chooser for file in files)
    assert codebook is not None
    assert memory is not None
    nothing: NDArray[np.float32] = np.zeros((len(memory.analysis), n_entries), np.float32)
    gains: NDArray[Any] = np.concatenate([codebook.gains, memory.gains], axis=1)
    return Chooser(gains, np.concatenate([memory.analysis, nothing], axis=1))


def _entries_of(found: ConditionerSet, path: Path) -> list[Vectors]:
    entries = [entry for entry in found.entries if not isinstance(entry, Text) and not entry.shape.n_prefix]
    if not entries or len(entries) < found.n_entries:
        raise ConfigError(f"{path}: expected entries of shifts alone, found others")
    return entries


def _basis_of(found: ConditionerSet, path: Path) -> Basis:
    basis = found.basis
    if basis is None or not basis.own or len(basis.entries):
        raise ConfigError(f"{path}: expected a basis whose weights chunks bring, without entries, found another set")
    return basis
