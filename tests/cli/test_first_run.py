from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_compiling_is_told_at_a_terminal(options: list[str], folder: Path, sample_text: bytes) -> None:
    """Once, for it takes longer than the text does; the next run does not compile."""
    (folder / "text").write_bytes(sample_text[:2000])
    shown = [_run(["compress", "-f", "text", "--model", "tiny", *options], folder) for _ in range(2)]
    assert [b"compiling for this machine" in text for text in shown] == [not options, False]


def _run(arguments: list[str], folder: Path) -> bytes:
    """What a terminal shows of a command whose compiled code is in the folder."""
    terminal, ours = pty.openpty()
    pieces: list[bytes] = []

    def _read() -> None:
        try:
            while piece := os.read(terminal, 1000):
                pieces.append(piece)
        except OSError:
            return

    reader = threading.Thread(target=_read)
    reader.start()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "compiled")}
    command = [sys.executable, "-m", "llmzip", *arguments]
    subprocess.run(command, cwd=folder, stderr=ours, env=environment, timeout=300, check=True)
    os.close(ours)
    reader.join()
    os.close(terminal)
    return b"".join(pieces)
