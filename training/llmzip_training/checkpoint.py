# ruff: noqa: TID253
"""Writes and finds checkpoints; imports torch, so it is loaded lazily as a whole.

A checkpoint is what `torch.save` writes, followed by the SHA-256 of those bytes: torch itself does not notice a
changed bit. It is written to a temporary file and renamed, so a file under its name is whole, whatever happened
while it was written. What is in it is decided by `trainer`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from llmzip.errors import FileError
from llmzip_training.files import write_whole

FOLDER = "checkpoints"
DIGEST_SIZE = 32


def checkpoint_paths(out: Path) -> list[Path]:
    """The checkpoints in the folder of a run, the newest first."""
    return sorted((out / FOLDER).glob("step-*.pt"), reverse=True)


def save_checkpoint(state: dict[str, Any], out: Path, step: int, keep: int) -> Path:
    """Write the checkpoint of a step, then remove those that are older than the `keep` newest whole ones.

    Damaged ones are not counted, so they never displace a whole one.

    Raises:
        FileError: the disk is full, or the file cannot be written; earlier checkpoints are as they were.
    """
    path = out / FOLDER / f"step-{step:09d}.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = buffer.getvalue()
        write_whole(path, payload, hashlib.sha256(payload).digest())
    except OSError as error:
        raise _unwritten(error, path, [other for other in checkpoint_paths(out) if is_whole(other)]) from error
    _remove_old(out, keep)
    return path


def _remove_old(out: Path, keep: int) -> None:
    n_whole = 0
    for path in checkpoint_paths(out):
        if n_whole == keep:
            path.unlink()
        elif is_whole(path):
            n_whole += 1


def is_whole(path: Path) -> bool:
    """Whether the digest at the end of a checkpoint is that of its content."""
    try:
        _read_payload(path)
    except (FileError, OSError):
        return False
    return True


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; its tensors are on the CPU.

    Raises:
        FileError: it is damaged.
    """
    payload = _read_payload(path)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise FileError(
            f"checkpoint: expected what torch.save writes, found something else: {error}", path=str(path)
        ) from error
    return state


def _read_payload(path: Path) -> bytes:
    content = path.read_bytes()
    payload, digest = content[:-DIGEST_SIZE], content[-DIGEST_SIZE:]
    if hashlib.sha256(payload).digest() != digest:
        raise FileError(
            "checkpoint: expected the digest at its end to be that of its content, found another", path=str(path)
        )
    return payload


def find_newest(out: Path) -> Path | None:
    """The newest checkpoint that is whole, saying so on standard error for each that is not; `None` without any.

    Raises:
        FileError: there are checkpoints, and all are damaged.
    """
    paths = checkpoint_paths(out)
    for path in paths:
        try:
            _read_payload(path)
        except FileError as error:
            print(f"llmzip: {error}; trying the one before it", file=sys.stderr, flush=True)
        else:
            return path
    if paths:
        message = f"expected a whole checkpoint, found {len(paths)} damaged; remove them to begin anew"
        raise FileError(message, path=str(out / FOLDER))
    return None


def load_newest(out: Path) -> dict[str, Any] | None:
    """Read the checkpoint that `find_newest` finds; it raises the same."""
    path = find_newest(out)
    return None if path is None else load_checkpoint(path)


def _unwritten(error: OSError, path: Path, others: list[Path]) -> FileError:
    kind = type(FileError.from_os_error(error))
    kept = f"the newest whole one is {others[0].name}" if others else "there is no earlier one"
    return kind(f"checkpoint not written: {error.strerror or error}; {kept}", path=str(path))
