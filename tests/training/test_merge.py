from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.conditioning.conditioner_file import read_conditioner_file
from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip_training.codebook import TrainedCodebook
from llmzip_training.conditioner_files import write_codebook, write_memory, write_text
from llmzip_training.memory import TrainedMemory
from llmzip_training.merge import merge_files


@pytest.fixture
def files(tiny_artefact: Artefact, tmp_path: Path) -> tuple[Path, Path]:
    """A codebook of three entries and a memory of two directions."""
    rng = np.random.default_rng(0)
    width, n_shifts = tiny_artefact.spec.width, tiny_artefact.spec.n_layers + 1

    def random(*shape: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = rng.normal(size=shape).astype(np.float32)
        return rows

    entries = [(np.zeros((0, width), np.float32), random(n_shifts, width)) for _ in range(3)]
    steps = np.full((3, n_shifts), 0.25, np.float32)
    codebook = TrainedCodebook(entries, steps, random(width + 1, 3), {"kind": "book"})
    write_codebook(codebook, tiny_artefact, tmp_path / "book.cond")
    directions = np.float32(0.05) * random(2, n_shifts, width)
    memory = TrainedMemory(directions, np.ones(2, np.float32), random(width + 1, 2), random(width + 1, 1), 15, {})
    write_memory(memory, tiny_artefact, tmp_path / "memory.cond")
    return tmp_path / "book.cond", tmp_path / "memory.cond"


def test_a_chunk_may_choose_from_both(files: tuple[Path, Path], tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Entries are what they were but for the grid, combinations exactly; the chooser knows all of them."""
    merged = merge_files(*files, tiny_artefact, tmp_path / "both.cond")
    file = read_conditioner_file(tmp_path / "both.cond")
    found = file.unpack_set(tiny_artefact.spec)
    assert found.pack(tiny_artefact.spec) == merged.pack(tiny_artefact.spec)
    assert (found.n_entries, found.n_choices) == (3, 5)
    book, memory = (read_conditioner_file(path) for path in files)
    entries = book.unpack_set(tiny_artefact.spec).conditioners()
    for one, other in zip(found.conditioners(), entries, strict=True):
        assert one.shifts is not None
        assert other.shifts is not None
        assert np.allclose(one.shifts, other.shifts, atol=0.01)
    basis, alone = found.basis, memory.unpack_set(tiny_artefact.spec).basis
    assert basis is not None
    assert alone is not None
    combined = [
        each.vectors.conditioner(np.array(weights)).shifts
        for each, weights in ((basis, [3, -2, 0, 0, 0]), (alone, [3, -2]))
    ]
    assert np.array_equal(combined[0], combined[1])  # type: ignore[arg-type]
    assert file.chooser is not None
    file.chooser.check(tiny_artefact.spec.width, 5, 5)
    mean = np.random.default_rng(1).normal(size=tiny_artefact.spec.width)
    assert memory.chooser is not None
    assert file.chooser.weights(mean, 15) == (*memory.chooser.weights(mean, 15), 0, 0, 0)
    assert set(file.notes) == {"codebook", "memory"}


def test_other_files_are_refused(files: tuple[Path, Path], tiny_artefact: Artefact, tmp_path: Path) -> None:
    """In the wrong order, or without a chooser."""
    write_text(np.array([5], dtype=np.int32), tiny_artefact, tmp_path / "text.cond", {})
    for pair, words in (
        ((files[1], files[1]), "entries of shifts alone"),
        ((files[0], files[0]), "a basis whose weights chunks bring"),
        ((tmp_path / "text.cond", files[1]), "with a chooser"),
    ):
        with pytest.raises(ConfigError, match=words):
            merge_files(*pair, tiny_artefact, tmp_path / "both.cond")
