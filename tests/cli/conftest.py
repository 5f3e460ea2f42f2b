"""Runs the commands as processes, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

_ENTRY = Path(__file__).with_name("stored_archive.py")


@pytest.fixture
def command() -> list[str]:
    """Give the beginning of a command line that runs llmzip with stored chunks."""
    return [sys.executable, str(_ENTRY)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder, which is the working directory too."""
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    return tmp_path


@pytest.fixture
def run(folder: Path, command: list[str]) -> Run:
    """Give a function that runs llmzip in the folder, with bytes on standard input."""

    def _run(*args: str, data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *args],
            input=data,
            capture_output=True,
            cwd=folder,
            env={**os.environ, **environment},
            timeout=60,
            check=False,
        )

    return _run
