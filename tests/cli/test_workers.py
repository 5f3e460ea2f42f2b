"""Interrupts and kills llmzip while its worker processes code: nothing of them is left, and nobody waits forever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.usefixtures("tiny_model"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]

COMPRESS = ("compress", "text", "a.llmz", "--model", "tiny", "--chunk-size", "500", "--workers", "2")


@pytest.fixture
def start(folder: Path, sample_text: bytes) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start llmzip on a text that takes a while, in a session of its own, as a terminal does."""
    (folder / "text").write_bytes(sample_text * 10)
    processes: list[subprocess.Popen[bytes]] = []

    def _start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "llmzip", *arguments]
        # A shell's background jobs ignore interruptions, and so would what they start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        processes.append(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, start_new_session=True))
        return processes[-1]

    yield _start
    for process in processes:
        process.kill()
        process.communicate()


def _children(process_id: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == process_id:
                found.append(int(entry.name))
    return found


def _workers(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers of a process, once they are there and at work."""
    deadline = time.monotonic() + 60
    while len(workers := _children(process.pid)) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    return workers


def _expect_gone(process_ids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{process_id}").exists() for process_id in process_ids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(
    number: signal.Signals, start: Callable[..., subprocess.Popen[bytes]], folder: Path
) -> None:
    """Neither files nor processes."""
    process = start(*COMPRESS)
    workers = _workers(process)
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    _expect_gone(workers)
    assert [path.name for path in folder.iterdir()] == ["text"]


def test_workers_end_with_a_killed_process(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """They see that nobody gives them jobs any more."""
    process = start(*COMPRESS)
    workers = _workers(process)
    process.kill()
    process.wait(timeout=30)
    _expect_gone(workers)


def test_a_killed_worker_ends_the_work(start: Callable[..., subprocess.Popen[bytes]], folder: Path) -> None:
    """With one line, its own exit code, and no target; with --resume the next run ends with the same archive."""
    process = start(*COMPRESS, "--resume")
    workers = _workers(process)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 41
    assert b"ended before its work (signal 9)" in errors
    assert errors.count(b"\n") == 1
    _expect_gone(workers)
    assert not (folder / "a.llmz").exists()
    assert start(*COMPRESS, "--resume").wait(timeout=60) == 0
    assert start(*COMPRESS[:2], "b.llmz", *COMPRESS[3:-1], "0").wait(timeout=60) == 0
    assert (folder / "a.llmz").read_bytes() == (folder / "b.llmz").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["a.llmz", "b.llmz", "text"]
