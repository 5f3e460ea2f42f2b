# ruff: noqa: TID253
from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from llmzip_training.distributed import ALONE, local_device
from llmzip_training.train import Job, train_language_model

WaitForStep = Callable[[Path, int, Callable[[], int | None]], None]
StartTwo = Callable[..., list[ForkServerProcess]]

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# Loads the trainer once, with what training imports as it goes, and every process begins as a copy of it.
SERVER = multiprocessing.get_context("forkserver")
LOADED = ["llmzip_training.train", "torch._dynamo", "torch.utils.tensorboard", "matplotlib.figure"]
BEGIN = """
import os, sys
for stream, path in outputs.items():
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
os.environ.update(environment)
"""
TRAIN = """
from llmzip_training.train import main
sys.argv[1:] = arguments
main()
"""


@pytest.fixture
def start_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartTwo]:
    """Start a program in two processes that know of each other as torchrun tells it.

    Rank `r` has its outputs in the files `r.out` and `r.err`.
    """
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    SERVER.set_forkserver_preload(LOADED)
    processes: list[ForkServerProcess] = []
    stores: list[TCPStore] = []

    def _start(program: str, *arguments: object) -> list[ForkServerProcess]:
        # As torchrun does, whoever starts them keeps what they meet by, so that no port is free meanwhile.
        stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stores[-1].port)}
        together["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        for rank in ("0", "1"):
            known = {
                "environment": {**ENVIRONMENT, **together, "RANK": rank, "LOCAL_RANK": rank},
                "outputs": {1: str(tmp_path / f"{rank}.out"), 2: str(tmp_path / f"{rank}.err")},
                "arguments": [str(argument) for argument in arguments],
            }
            processes.append(SERVER.Process(target=exec, args=(BEGIN + program, known)))
            processes[-1].start()
        return processes[-2:]

    yield _start
    for process in processes:
        process.kill()
        process.join()


def _options(data: Path, out: Path, cache: Path) -> list[str | Path]:
    return ["--data", data, "--out", out, "--cache", cache, "--threads", "1", "--device", "cpu"]


def _losses(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("elapsed_s", "tokens_per_s")} for line in lines]


def _wait(processes: list[ForkServerProcess]) -> list[int | None]:
    for process in processes:
        process.join(200)
    return [process.exitcode for process in processes]


def test_two_processes_equal_one_bit_for_bit(
    start_two: StartTwo, shards: Path, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    """One process with two micro-batches adds the same two terms that two processes exchange, so nothing differs."""
    optimiser = "muon_rate = 0.02"
    run_file = _train_with_one(optimiser, shards, write_run, tmp_path)
    processes = start_two(TRAIN, run_file, *_options(shards, tmp_path / "two", tmp_path / "cache"))
    assert _wait(processes) == [0, 0], (tmp_path / "0.err").read_text()
    _expect_equal(tmp_path)
    assert [(tmp_path / name).read_text().count("finished") for name in ("0.out", "1.out")] == [1, 0]


def test_torchrun_starts_them(shards: Path, write_run: Callable[..., Path], tmp_path: Path) -> None:
    """As a command does; with the other optimiser."""
    optimiser = 'kind = "adamw"'
    run_file = _train_with_one(optimiser, shards, write_run, tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "llmzip_training.train", run_file, *_options(shards, tmp_path / "two", tmp_path / "cache")]
    done = subprocess.run(
        [*launch, *train], env={**os.environ, **ENVIRONMENT}, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    _expect_equal(tmp_path)
    assert done.stdout.count(b"finished") == 1


def _train_with_one(optimiser: str, shards: Path, write_run: Callable[..., Path], folder: Path) -> Path:
    """Train with two micro-batches; the run file of two processes that each have one."""
    run_file = write_run(optimiser=optimiser, accumulate=2)
    train_language_model(Job(run_file, shards, folder / "one", folder / "cache", device="cpu", threads=1))
    return write_run(optimiser=optimiser, accumulate=1)


def _expect_equal(folder: Path) -> None:
    one, two = (load_file(folder / name / "hf" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
    assert _losses(folder / "two") == _losses(folder / "one")


def test_two_processes_continue_bit_for_bit(
    start_two: StartTwo, shards: Path, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    """As the same two without a break: they go on from the step that the first finds whole, at a stage's end."""
    run_file = write_run()
    for continued in (False, True):
        processes = start_two(TRAIN, run_file, *_options(shards, tmp_path / "out", tmp_path / "cache"))
        ended = _wait(processes)
        errors = "".join((tmp_path / name).read_text() for name in ("0.err", "1.err"))
        assert ended == [0, 0], errors
        assert ("step-000000008.pt: checkpoint: expected" in errors) == continued
        assert ("from step 4" in (tmp_path / "0.out").read_text()) == continued
        if not continued:
            whole, losses = load_file(tmp_path / "out" / "hf" / "model.safetensors"), _losses(tmp_path / "out")
            (tmp_path / "out" / "checkpoints" / "step-000000008.pt").write_bytes(b"damaged")
    resumed = load_file(tmp_path / "out" / "hf" / "model.safetensors")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    assert [line for line in _losses(tmp_path / "out") if line["step"] in (4, 8)] == [
        line for line in losses if line["step"] in (4, 8)
    ]


def test_killed_process_does_not_leave_the_other_waiting(
    start_two: StartTwo, shards: Path, write_run: Callable[..., Path], wait_for_step: WaitForStep, tmp_path: Path
) -> None:
    """Rank 0 ends with one line and the code of a missing backend, long before any timeout."""
    run_file = write_run(schedule="steps = 1000000\nlog_every = 1\nmeasure_every = 1000000")
    first, second = start_two(TRAIN, run_file, *_options(shards, tmp_path / "out", tmp_path / "cache"))
    wait_for_step(tmp_path / "out", 5, lambda: first.exitcode)
    second.kill()
    first.join(60)
    assert first.exitcode == 40
    assert "llmzip: expected an answer of the run's other processes, found none" in (tmp_path / "0.err").read_text()


def test_silent_process_is_given_up_after_the_timeout(start_two: StartTwo, tmp_path: Path) -> None:
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
    first, _ = start_two(program)
    first.join(40)
    assert first.exitcode == 7, (tmp_path / "0.err").read_text()


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
