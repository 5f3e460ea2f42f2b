"""Writes files whole or not at all, and reads JSON without trusting it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmzip.errors import ConfigError


def write_whole(path: Path, *parts: bytes) -> None:
    """Write the parts of a file under another name, and rename it when they are on the disk.

    Raises:
        OSError: it cannot be written; a file that was there before is as it was.
    """
    unfinished = _unfinished(path)
    try:
        _write_to_disk(unfinished, *parts)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def write_all_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together: all under other names, and rename them when all are on the disk.

    Raises:
        OSError: one cannot be written; those that were there before are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in files]
    try:
        for path, content in zip(paths, files.values(), strict=True):
            _write_to_disk(_unfinished(path), content)
        for path in paths:
            _unfinished(path).replace(path)
    except OSError:
        for path in paths:
            _unfinished(path).unlink(missing_ok=True)
        raise


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a file that holds one JSON object; `what` names it in messages.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {what}: expected a JSON object, found something else: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {what}: expected a JSON object, found {type(value).__name__}")
    return value


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _write_to_disk(path: Path, *parts: bytes) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
