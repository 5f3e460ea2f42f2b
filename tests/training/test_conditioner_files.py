from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.conditioning.conditioner_file import ConditionerFile, read_conditioner_file
from llmzip.conditioning.hyperpriors import Kind
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import register_network
from llmzip.conditioning.normal import nearest_code, step_of
from llmzip.conditioning.vectors import Vectors
from llmzip.models.artefact import Artefact
from llmzip_training.codebook import TrainedCodebook
from llmzip_training.conditioner_files import counted, write_codebook, write_conditioner, write_memory, write_text
from llmzip_training.memory import TrainedMemory
from llmzip_training.steering import Trained

Floats = NDArray[np.float32]


def _read(path: Path, artefact: Artefact, n_bytes: int) -> ConditionerFile:
    file = read_conditioner_file(path)
    assert file.artefact_id == artefact.id
    assert len(file.body) == n_bytes
    return file


def _random(*shape: int) -> Floats:
    rows: Floats = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return rows


@pytest.mark.parametrize("kind", ["gaussian", "empirical", "lloyd-max"])
def test_conditioner_is_written_as_it_will_be_read(kind: Kind, tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Each row at a quarter of a step in the mean from what was trained; the report goes with it."""
    spec, steps = tiny_artefact.spec, np.array([0.5, 0.125, 0.25], np.float32)
    shifts = np.float32(0.1) * _random(spec.n_layers + 1, spec.width)
    trained = Trained(_random(2, spec.width), shifts, steps, {"gain": 0.5})
    n_bytes = write_conditioner(trained, tiny_artefact, tmp_path / "one.cond", kind)
    file = _read(tmp_path / "one.cond", tiny_artefact, n_bytes)
    assert file.notes == {"gain": 0.5}
    (found,) = file.unpack_set(spec).conditioners()
    assert found.prefix is not None
    assert found.shifts is not None
    assert abs(found.prefix - trained.prefix).mean() <= 0.13
    assert (abs(found.shifts - trained.shifts).mean(axis=1) <= [0.035, 0.065]).all()


def test_rows_under_a_learned_hyperprior_are_read_exactly(
    tiny_artefact: Artefact, tiny_network: HyperpriorNetwork, tmp_path: Path
) -> None:
    """As multiples of their steps, whatever the network expects."""
    spec = tiny_artefact.spec
    shifts, steps = _random(spec.n_layers + 1, spec.width), np.array([0.125, 0.3], np.float32)
    trained = Trained(_random(0, spec.width), shifts, steps, {})
    n_bytes = write_conditioner(trained, tiny_artefact, tmp_path / "one.cond", tiny_network)
    register_network(tiny_network)
    found = _read(tmp_path / "one.cond", tiny_artefact, n_bytes).unpack_set(spec)
    (entry,) = found.entries
    assert isinstance(entry, Vectors)
    assert {group.hyperprior.name for group in entry.groups} == {"learned"}
    rounded = np.array([step_of(nearest_code(float(step))) for step in steps])[:, None]
    expected = np.rint(shifts.astype(np.float64) / rounded).astype(np.float32) * rounded
    values = entry.conditioner().shifts
    assert values is not None
    assert (values == expected).all()


def test_the_report_counts_what_is_written(
    tiny_artefact: Artefact, tiny_network: HyperpriorNetwork, tmp_path: Path
) -> None:
    """Under each hyperprior, whatever the trainer thought it would be."""
    spec = tiny_artefact.spec
    report = {"bits_without": 9000.0, "bits_with": 6000.0, "conditioner_bits": 1.0, "gain": 1 / 3}
    steps = np.full(spec.n_layers + 1, 1.0, np.float32)
    trained = Trained(_random(0, spec.width), _random(spec.n_layers + 1, spec.width), steps, report)
    kinds: tuple[Kind | HyperpriorNetwork, ...] = ("gaussian", "empirical", tiny_network)
    for kind in kinds:
        facts = counted(trained, kind).report
        n_bytes = write_conditioner(trained, tiny_artefact, tmp_path / "one.cond", kind)
        assert 8 * n_bytes - 64 < facts["conditioner_bits"] < 8 * n_bytes
        assert facts["net_gain"] == (3000 - facts["conditioner_bits"]) / 9000
        assert facts["pays"] == (facts["conditioner_bits"] < 3000)
        assert facts["gain"] == report["gain"]


def test_text_is_written_as_tokens(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """For a few bytes."""
    tokens = np.array([5, 300, 7], dtype=np.int32)
    n_bytes = write_text(tokens, tiny_artefact, tmp_path / "text.cond", {"text": "abc"})
    (found,) = _read(tmp_path / "text.cond", tiny_artefact, n_bytes).unpack_set(tiny_artefact.spec).conditioners()
    assert found.text.tolist() == [5, 300, 7]
    assert n_bytes == 8


def test_codebook_is_written_with_its_chooser(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Whose estimates are bits, not nats."""
    spec = tiny_artefact.spec
    shape = (spec.n_layers + 1, spec.width)
    entries = [(np.zeros((0, spec.width), np.float32), np.full(shape, i, np.float32)) for i in range(5)]
    weights = np.full((spec.width + 1, 5), np.log(2), np.float32)
    codebook = TrainedCodebook(entries, np.ones((5, shape[0]), np.float32), weights, {})
    n_bytes = write_codebook(codebook, tiny_artefact, tmp_path / "book.cond")
    file = _read(tmp_path / "book.cond", tiny_artefact, n_bytes)
    found = file.unpack_set(spec).conditioners()
    assert [float(one.shifts[0, 0]) for one in found if one.shifts is not None] == [0, 1, 2, 3, 4]
    assert file.chooser is not None
    assert (file.chooser.gains == 1).all()


def test_memory_is_written_as_a_basis(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Chunks bring their weights, which the analysis says."""
    spec, d = tiny_artefact.spec, 3
    directions = _random(d, spec.n_layers + 1, spec.width)
    memory = TrainedMemory(
        directions, np.full(d, 1.5, np.float32), _random(spec.width + 1, d), _random(spec.width + 1, 1), 15, {}
    )
    n_bytes = write_memory(memory, tiny_artefact, tmp_path / "memory.cond")
    file = _read(tmp_path / "memory.cond", tiny_artefact, n_bytes)
    basis = file.unpack_set(spec).basis
    assert basis is not None
    assert basis.own
    found = basis.vectors.conditioner(np.array([2, 0, -1])).shifts
    assert found is not None
    assert np.allclose(found, 2 * directions[0] - directions[2], atol=0.06)
    assert file.chooser is not None
    file.chooser.check(spec.width, 2, d)
