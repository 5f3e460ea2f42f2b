"""Writes what was trained as conditioner files: rounded, coded under a hyperprior, with what chooses among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.conditioner_file import ConditionerFile
from llmzip.conditioning.conditioner_set import Basis, ConditionerSet, Text
from llmzip.conditioning.hyperpriors import Coordinates, Kind, quantise
from llmzip.conditioning.learned import quantise_learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.normal import nearest_sigma_code
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.models.artefact import Artefact
from llmzip_training.files import write_whole

if TYPE_CHECKING:
    from llmzip_training.codebook import TrainedCodebook
    from llmzip_training.memory import TrainedMemory
    from llmzip_training.steering import Trained

Floats = NDArray[np.float32]
# Steps of a memory's directions, in deviations of a group: its weights are whole numbers, so errors add up.
_DIRECTION_STEP = 1 / 32


def write_conditioner(
    trained: Trained, artefact: Artefact, path: Path, kind: Kind | HyperpriorNetwork = "gaussian"
) -> int:
    """Write a conditioner; the bytes that an archive holds of it.

    Args:
        trained: what `SteeringTrainer` gave.
        artefact: of the model.
        path: of the file; one that was there before stays as it was if this fails.
        kind: the hyperprior, or the network of a learned one, which knows no prefix.
    """
    entry = vectors_of(trained.prefix, trained.shifts, trained.steps.tolist(), kind)
    return _write(artefact, ConditionerSet((entry,)), trained.report, None, path)


def counted(trained: Trained, kind: Kind | HyperpriorNetwork) -> Trained:
    """The same, with the bits in its report that the hyperprior takes in place of the trainer's estimate of them."""
    entry = vectors_of(trained.prefix, trained.shifts, trained.steps.tolist(), kind)
    bits = sum(group.cost().total_bits for group in entry.groups)
    without, gain = trained.report["bits_without"], trained.report["bits_without"] - trained.report["bits_with"]
    facts = {"conditioner_bits": bits, "net_gain": (gain - bits) / without, "pays": gain > bits}
    return replace(trained, report=trained.report | facts)


def write_text(tokens: NDArray[np.int32], artefact: Artefact, path: Path, notes: dict[str, Any]) -> int:
    """Write a fixed string as a conditioner; the bytes that an archive holds of it."""
    return _write(artefact, ConditionerSet((Text(tokens),)), notes, None, path)


def write_codebook(codebook: TrainedCodebook, artefact: Artefact, path: Path) -> int:
    """Write a codebook with its chooser; the bytes that an archive holds of it."""
    entries = [
        vectors_of(prefix, shifts, steps.tolist())
        for (prefix, shifts), steps in zip(codebook.entries, codebook.steps, strict=True)
    ]
    # What was learnt are nats.
    chooser = Chooser(codebook.chooser / np.float32(math.log(2)), codebook.chooser[:, :0])
    return _write(artefact, ConditionerSet(tuple(entries)), codebook.report, chooser, path)


def write_memory(memory: TrainedMemory, artefact: Artefact, path: Path) -> int:
    """Write a basis whose weights chunks bring; the bytes that an archive holds of it."""
    n_directions, n_shifts, width = memory.directions.shape
    rows = memory.directions.transpose(1, 0, 2).reshape(n_shifts, -1)
    groups = tuple(quantise(row, "gaussian", step=_step(row)) for row in rows)
    spreads = np.array([nearest_sigma_code(float(deviation)) for deviation in memory.deviations], dtype=np.int64)
    entries = np.zeros((0, n_directions), dtype=np.int64)
    basis = Basis(Vectors(Shape(0, n_shifts, width), groups), spreads, memory.radius, entries, own=True)
    chooser = Chooser(memory.gains, memory.analysis)
    return _write(artefact, ConditionerSet(basis=basis), memory.report, chooser, path)


def vectors_of(
    prefix: Floats, shifts: Floats, steps: Sequence[float], kind: Kind | HyperpriorNetwork = "gaussian"
) -> Vectors:
    """Rounded rows.

    Args:
        prefix: `[n, D]`.
        shifts: `[L + 1, D]`, or no rows.
        steps: of the prefix, if it has rows, then of each shift; for Lloyd-Max a quarter of them is the grid's.
        kind: the hyperprior, or the network of a learned one, which knows no prefix.
    """
    groups = [prefix.reshape(-1)] * (len(prefix) > 0) + list(shifts)
    quantised = [
        _quantised(group, part, kind, step) for part, (group, step) in enumerate(zip(groups, steps, strict=True))
    ]
    return Vectors(Shape(len(prefix), len(shifts), prefix.shape[1]), tuple(quantised))


def _quantised(group: Floats, part: int, kind: Kind | HyperpriorNetwork, step: float) -> Coordinates:
    if isinstance(kind, HyperpriorNetwork):
        return quantise_learned(group, part, kind, step)
    if kind != "lloyd-max":
        return quantise(group, kind, step=step)
    n_levels = int(np.clip(np.rint((group.max() - group.min()) / step) + 1, 1, 4096))
    return quantise(group, kind, n_levels=n_levels)


def _step(row: Floats) -> float:
    return max(float(row.std()) * _DIRECTION_STEP, 1e-6)


def _write(
    artefact: Artefact, found: ConditionerSet, notes: dict[str, Any], chooser: Chooser | None, path: Path
) -> int:
    body = found.pack(artefact.spec)
    write_whole(path, ConditionerFile(artefact.id, body, notes, chooser).pack())
    return len(body)
