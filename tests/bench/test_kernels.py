# ruff: noqa: TID253
from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import kernels, results, timing
from bench.kernels import Rates, check, floor_seconds
from llmzip.errors import ExactnessError

ROOT = Path(__file__).parents[2]


def square(x: Tensor) -> tuple[Tensor, ...]:
    """An operation that needs no kernel."""
    return (x * x,)


def other_square(x: Tensor) -> tuple[Tensor, ...]:
    """One whose values are right and whose gradients are not."""
    return ((x * x).detach() + 0 * x,)


@pytest.fixture
def case() -> Any:
    """Squares of four numbers."""
    from bench.kernel_cases import Case

    x = torch.tensor([1.0, 2.0, -3.0, 4.0], requires_grad=True)
    return Case("square of 4", (x,), {"kernel": square}, square, 1e-6, (32, 64), (4, 8))


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks for a GPU while measuring gets made-up answers."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda way, **_: way)
    monkeypatch.setattr(kernels, "accelerator", lambda: "made-up GPU")
    monkeypatch.setattr(kernels, "measure_rates", lambda _: Rates(1e12, {torch.float32: 1e12}))
    monkeypatch.setattr(kernels, "BURST_SECONDS", 1e-4)
    monkeypatch.setattr(timing, "REST_SECONDS", 0)
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpu_kernels_are_only_checked(tmp_path: Path) -> None:
    """One line says so, each case says how far its kernels are off, and no speed is printed or recorded."""
    path = tmp_path / "results.csv"
    command = [sys.executable, "-m", "bench.kernels", "--only", "float64", "--results", str(path)]
    # The folder need not be on the path by itself.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == kernels.NO_GPU
    operations = [line.partition(" float64: ")[0].rpartition(" ")[0] for line in lines]
    assert operations == ["selective attention B1 H2/2 T33", "cumulative sum", "protect and attack"]
    assert all(" off by " in line and "| " not in line for line in lines)
    assert not path.exists()


def test_every_way_has_its_row_and_its_bar(
    case: Any, without_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both passes of kernel, eager, compiled and others; the floor is recorded beside them, and the GPU."""
    del without_gpu
    path, picture = tmp_path / "results.csv", tmp_path / "times.png"
    chosen = kernels._parse(["--repeats", "2", "--results", str(path), "--picture", str(picture)])
    with_other = replace(case, others={"SDPA": square})
    assert results.record("kernels", lambda: kernels.measure([with_other], chosen), path, "made-up GPU") == 0
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    ways = ["kernel", "eager", "compiled", "SDPA", "floor"]
    assert [(row["case"], row["metric"]) for row in rows] == [
        (f"square of 4: {way}", metric) for metric in kernels.PASSES for way in ways
    ]
    assert all(row["device"].endswith("; made-up GPU") and row["unit"] == "s" for row in rows)
    assert [row["repeats"] for row in rows] == ["2", "2", "2", "2", ""] * 2
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| square of 4 ")]
    assert [line.split(" | ")[1:3] for line in table] == [[m, way] for m in kernels.PASSES for way in ways[:4]]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_wrong_gradient_leaves_no_speed(
    case: Any, without_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though all values are right, nothing is printed or recorded, and the status is 1."""
    del without_gpu
    path = tmp_path / "results.csv"
    wrong = replace(case, kernels={"kernel": other_square})
    chosen = kernels._parse(["--results", str(path)])
    assert results.record("kernels", lambda: kernels.measure([case, wrong], chosen), path) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "square of 4: kernel: expected values and gradients as by PyTorch" in told.err
    assert not path.exists()


def test_number_that_is_none_is_wrong(case: Any) -> None:
    """Not a number is no small difference."""
    nothing = replace(case, kernels={"kernel": lambda x: (x * torch.nan,)})
    with pytest.raises(ExactnessError, match="found a difference of inf"):
        check(nothing)


def test_floor_is_the_longer_of_moving_and_multiplying(case: Any) -> None:
    """Forward, and forward and backward: 32 and 64 bytes, 4 and 8 operations."""
    assert floor_seconds(case, Rates(4.0, {torch.float32: 1.0}), backward=False) == 8
    assert floor_seconds(case, Rates(4.0, {torch.float32: 1.0}), backward=True) == 16
    assert floor_seconds(case, Rates(32.0, {torch.float32: 0.5}), backward=False) == 8
