# ruff: noqa: TID253
from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from llmzip.errors import DiskFullError, FileError
from llmzip_training import checkpoint
from llmzip_training.checkpoint import (
    checkpoint_paths,
    find_newest,
    is_whole,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)


def _state(step: int) -> dict[str, Any]:
    return {"step": step, "model": {"weight": torch.arange(2000.0) + step}, "run": {"stages": ({"until": 1.0},)}}


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Tensors bit for bit, tuples as tuples."""
    save_checkpoint(_state(7), tmp_path, 7, keep=2)
    state = load_newest(tmp_path)
    assert state is not None
    assert torch.equal(state.pop("model")["weight"], _state(7)["model"]["weight"])
    assert state == {"step": 7, "run": {"stages": ({"until": 1.0},)}}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """Two of three, newest first, whatever the number of digits of their steps; nothing else stays in the folder."""
    for step in (8, 90, 1000):
        save_checkpoint(_state(step), tmp_path, step, keep=2)
    assert [load_checkpoint(path)["step"] for path in checkpoint_paths(tmp_path)] == [1000, 90]
    assert set((tmp_path / "checkpoints").iterdir()) == set(checkpoint_paths(tmp_path))


def test_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    """A run that has not begun."""
    assert load_newest(tmp_path) is None


def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and what is left; no unfinished file stays."""
    save_checkpoint(_state(1), tmp_path, 1, keep=1)

    def _full(path: Path, *_parts: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_whole", _full)
    message = r"step-000000002\.pt: checkpoint not written: No space left on device; .*step-000000001\.pt"
    with pytest.raises(DiskFullError, match=message):
        save_checkpoint(_state(2), tmp_path, 2, keep=1)
    state = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1


def test_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One changed bit is noticed and reported."""
    for step in (1, 2):
        save_checkpoint(_state(step), tmp_path, step, keep=2)
    _damage(tmp_path / "checkpoints" / "step-000000002.pt")
    state = load_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert "step-000000002.pt: checkpoint: expected" in capfd.readouterr().err


def test_damaged_checkpoints_displace_no_whole_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run that goes on from before two damaged ones keeps what it writes, and the one that it came from."""
    for step in (10, 20, 30):
        save_checkpoint(_state(step), tmp_path, step, keep=3)
    for step in (20, 30):
        _damage(tmp_path / "checkpoints" / f"step-{step:09d}.pt")
    save_checkpoint(_state(12), tmp_path, 12, keep=2)
    kept = [path for path in checkpoint_paths(tmp_path) if is_whole(path)]
    assert [load_checkpoint(path)["step"] for path in kept] == [12, 10]
    assert find_newest(tmp_path) == kept[0]
    assert capfd.readouterr().err.count("trying the one before it") == 2


def test_damaged_checkpoints_go_when_they_are_old(tmp_path: Path) -> None:
    """So that they do not pile up."""
    _damage(save_checkpoint(_state(1), tmp_path, 1, keep=2))
    for step in (2, 3):
        save_checkpoint(_state(step), tmp_path, step, keep=2)
    assert [load_checkpoint(path)["step"] for path in checkpoint_paths(tmp_path)] == [3, 2]


@pytest.mark.parametrize("length", [0, 20, 1000])
def test_cut_checkpoint_is_refused(tmp_path: Path, length: int) -> None:
    """However little is left of it."""
    path = save_checkpoint(_state(1), tmp_path, 1, keep=1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileError, match="expected the digest"):
        load_checkpoint(path)


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    """A run does not begin anew in silence over what it had learnt."""
    _damage(save_checkpoint(_state(1), tmp_path, 1, keep=1))
    with pytest.raises(FileError, match=r"expected a whole checkpoint, found 1 damaged; remove them to begin anew"):
        load_newest(tmp_path)
