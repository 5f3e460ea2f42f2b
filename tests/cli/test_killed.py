"""Kills llmzip, with a real model, at random moments: what is there is right, and the next run ends the work."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_model")]

MOMENTS = 20


@pytest.fixture
def tree(folder: Path, sample_text: bytes) -> Path:
    """Some files, more than a second's work."""
    root = folder / "tree"
    root.mkdir()
    for i in range(12):
        (root / f"{i:02d}.py").write_bytes(sample_text[i * 700 :] * 3)
    return root


@pytest.fixture
def llmzip(folder: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start llmzip in the folder."""

    def _start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "llmzip", *arguments]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return _start


def _seconds(process: subprocess.Popen[bytes]) -> float:
    """How long a command takes that is left alone."""
    start = time.monotonic()
    assert process.wait(timeout=120) == 0
    return time.monotonic() - start


def _kill(process: subprocess.Popen[bytes], after: float) -> None:
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


def _contents(root: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in root.iterdir()
        if not path.name.startswith(".llmzip-")
    }


COMPRESS = ("compress", "tree", "a.llmz", "--model", "tiny", "--chunk-size", "1000", "--threads", "1")


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("killed_with", [(), ("--resume",)], ids=["plain", "resume"])
def test_a_killed_compress_goes_on_to_the_same_archive(
    killed_with: tuple[str, ...], llmzip: Callable[..., subprocess.Popen[bytes]], folder: Path
) -> None:
    """Until the end there is no archive; then it has the bytes of one that was made without a break."""
    seconds = _seconds(llmzip(*COMPRESS))
    expected = (folder / "a.llmz").read_bytes()
    (folder / "a.llmz").unlink()
    moments = random.Random(1)
    for _ in range(MOMENTS):
        _kill(llmzip(*COMPRESS, *killed_with), seconds * moments.random())
        if (folder / "a.llmz").exists():
            assert (folder / "a.llmz").read_bytes() == expected
            (folder / "a.llmz").unlink()
    assert llmzip(*COMPRESS, "--resume").wait(timeout=120) == 0
    assert (folder / "a.llmz").read_bytes() == expected
    assert sorted(path.name for path in folder.iterdir()) == ["a.llmz", "tree"]


def test_a_killed_decompress_leaves_the_whole_or_nothing(
    llmzip: Callable[..., subprocess.Popen[bytes]], folder: Path, sample_text: bytes
) -> None:
    """The next one does it."""
    (folder / "text").write_bytes(sample_text * 4)
    assert llmzip("compress", "text", "a.llmz", *COMPRESS[3:]).wait(timeout=120) == 0
    command = ("decompress", "a.llmz", "out", "--model", "tiny")
    seconds = _seconds(llmzip(*command))
    (folder / "out").unlink()
    moments = random.Random(2)
    for _ in range(MOMENTS):
        _kill(llmzip(*command), seconds * moments.random())
        if (folder / "out").exists():
            assert (folder / "out").read_bytes() == sample_text * 4
            (folder / "out").unlink()
    assert llmzip(*command).wait(timeout=120) == 0
    assert (folder / "out").read_bytes() == sample_text * 4
    assert sorted(path.name for path in folder.iterdir()) == ["a.llmz", "out", "text"]


def test_a_killed_extract_leaves_whole_files_and_goes_on(
    llmzip: Callable[..., subprocess.Popen[bytes]], folder: Path, tree: Path
) -> None:
    """Every file that has its name has its content; --resume makes the others."""
    assert llmzip(*COMPRESS).wait(timeout=120) == 0
    command = ("extract", "a.llmz", "-C", "out", "--resume", "--model", "tiny", "--threads", "1")
    seconds = _seconds(llmzip(*command))
    expected = _contents(tree)
    assert _contents(folder / "out" / "tree") == expected
    moments = random.Random(3)
    for i in range(MOMENTS):
        if i % 5 == 0:
            for path in (folder / "out" / "tree").iterdir():
                path.unlink()
        _kill(llmzip(*command), seconds * moments.random())
        assert _contents(folder / "out" / "tree").items() <= expected.items()
    assert llmzip(*command).wait(timeout=120) == 0
    assert _contents(folder / "out" / "tree") == expected
    assert {path.name for path in (folder / "out" / "tree").iterdir()} == set(expected)
