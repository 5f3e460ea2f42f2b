# ruff: noqa: TID253
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmzip_training.distributed import ALONE, local_device
from llmzip_training.train import Job, train_language_model

WaitForStep = Callable[[Path, int, subprocess.Popen[bytes]], None]

TRAIN = ["-m", "llmzip_training.train"]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **more}


def _ranked(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells a process of two."""
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return _environment(**places, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


@pytest.fixture
def port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def _losses(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("elapsed_s", "tokens_per_s")} for line in lines]


@pytest.mark.parametrize("optimiser", ["muon_rate = 0.02", 'kind = "adamw"'], ids=["muon", "adamw"])
def test_two_processes_equal_one_bit_for_bit(
    optimiser: str, shards: Path, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    """One process with two micro-batches adds the same two terms that two processes exchange, so nothing differs."""
    run_file = write_run(optimiser=optimiser, accumulate=2)
    train_language_model(Job(run_file, shards, tmp_path / "one", tmp_path / "cache", device="cpu", threads=1))
    run_file = write_run(optimiser=optimiser, accumulate=1)
    done = _train_with_two(run_file, shards, tmp_path / "two", tmp_path / "cache")
    assert done.returncode == 0, done.stderr.decode()
    one, two = (load_file(tmp_path / name / "hf" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
    assert _losses(tmp_path / "two") == _losses(tmp_path / "one")
    assert done.stdout.count(b"finished") == 1


def test_two_processes_continue_bit_for_bit(shards: Path, write_run: Callable[..., Path], tmp_path: Path) -> None:
    """As the same two without a break: they go on from the step that the first finds whole, at a stage's end."""
    run_file = write_run()
    for continued in (False, True):
        done = _train_with_two(run_file, shards, tmp_path / "out", tmp_path / "cache")
        assert done.returncode == 0, done.stderr.decode()
        assert (b"step-000000008.pt: checkpoint: expected" in done.stderr) == continued
        assert (b"from step 4" in done.stdout) == continued
        if not continued:
            whole, losses = load_file(tmp_path / "out" / "hf" / "model.safetensors"), _losses(tmp_path / "out")
            (tmp_path / "out" / "checkpoints" / "step-000000008.pt").write_bytes(b"damaged")
    resumed = load_file(tmp_path / "out" / "hf" / "model.safetensors")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    assert [line for line in _losses(tmp_path / "out") if line["step"] in (4, 8)] == [
        line for line in losses if line["step"] in (4, 8)
    ]


def _train_with_two(run_file: Path, data: Path, out: Path, cache: Path) -> subprocess.CompletedProcess[bytes]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options: list[str | Path] = ["--data", data, "--out", out, "--cache", cache, "--threads", "1", "--device", "cpu"]
    return subprocess.run(
        [*launch, *TRAIN, run_file, *options], env=_environment(), capture_output=True, timeout=200, check=False
    )


def test_killed_process_does_not_leave_the_other_waiting(
    shards: Path, write_run: Callable[..., Path], wait_for_step: WaitForStep, tmp_path: Path, port: int
) -> None:
    """Rank 0 ends with one line and the code of a missing backend, long before any timeout."""
    run_file = write_run(schedule="steps = 1000000\nlog_every = 1\nmeasure_every = 1000000")
    arguments: list[str | Path] = [
        run_file,
        "--data",
        shards,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, *TRAIN, *arguments],
            env=_ranked(rank, port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    try:
        wait_for_step(tmp_path / "out", 5, processes[0])
        processes[1].send_signal(signal.SIGKILL)
        _, errors = processes[0].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 40
    assert b"llmzip: expected an answer of the run's other processes, found none" in errors


def test_silent_process_is_given_up_after_the_timeout(port: int) -> None:
    """A process that lives but does not answer, as one that is stopped."""
    program = (
        "import sys, time, torch\n"
        "from datetime import timedelta\n"
        "from llmzip.errors import BackendError\n"
        "from llmzip_training.distributed import joined\n"
        "try:\n"
        "    with joined('cpu', timedelta(seconds=3)) as processes:\n"
        "        assert processes.agree(processes.rank + 0.5) == 0.5\n"
        "        time.sleep(60 * processes.rank)\n"
        "        processes.sum(torch.ones(3))\n"
        "except BackendError:\n"
        "    sys.exit(7)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=_ranked(rank, port), stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    try:
        _, errors = processes[0].communicate(timeout=40)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 7, errors.decode()


def test_one_process_needs_nobody() -> None:
    """Sums, agreements and long work are what they are."""
    assert ALONE.is_main
    assert torch.equal(ALONE.sum(torch.arange(3)), torch.arange(3))
    assert ALONE.agree(0.25) == 0.25
    assert ALONE.first(lambda: "made") == "made"


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number on the machine; a named device is taken as it is."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [local_device(device) for device in ("cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:1", "cpu"]
