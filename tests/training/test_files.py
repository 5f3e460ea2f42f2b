from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llmzip_training.files import write_whole


def test_parts_are_one_file(tmp_path: Path) -> None:
    """In their order, in place of what was there, and with nothing beside it."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    write_whole(path, b"one", b"two")
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full only when the data are flushed to it."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def _full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
