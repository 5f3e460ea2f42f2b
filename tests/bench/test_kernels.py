# ruff: noqa: TID253
from __future__ import annotations

import ast
import csv
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

# Without a GPU kernels run through Triton's interpreter, which must be chosen before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest.importorskip("triton")

from triton.runtime.jit import KernelInterface

from bench import kernels, kernels_timing, results
from bench.kernel_cases import PASSES, TrainingCase
from bench.kernels_exact import ExactCase
from bench.kernels_timing import Rates, Work, compiled_by_torch, floor_seconds
from llmzip.errors import ExactnessError

ROOT = Path(__file__).parents[2]


def square(x: Tensor) -> tuple[Tensor, ...]:
    """An operation that needs no kernel."""
    return (x * x,)


def other_square(x: Tensor) -> tuple[Tensor, ...]:
    """One whose values are right and whose gradients are not."""
    return ((x * x).detach() + 0 * x,)


@pytest.fixture(scope="module")
def exact_cases() -> list[ExactCase]:
    """Of all operations of the exact engine; on a GPU cuBLAS takes no sizes as small as those of the interpreter."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    return [case for case in kernels._cases("cpu", "") if isinstance(case, ExactCase)]


@pytest.fixture
def case() -> TrainingCase:
    """Squares of four numbers."""
    x = torch.tensor([1.0, 2.0, -3.0, 4.0], requires_grad=True)
    return TrainingCase("square of 4", "a product", (x,), {"kernel": square}, square, 1e-6, (32, 64), (4, 8))


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks for a GPU while measuring gets made-up answers."""
    dtypes = (torch.float32, torch.float64, torch.int8)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda way, **_: way)
    monkeypatch.setattr(kernels, "accelerator", lambda: "made-up GPU")
    monkeypatch.setattr(kernels_timing, "measure_rates", lambda: Rates(1e12, dict.fromkeys(dtypes, 1e12)))
    monkeypatch.setattr(kernels_timing, "BURST_SECONDS", 1e-4)
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpu_kernels_are_only_checked(tmp_path: Path) -> None:
    """One line says so, each case says how its kernels compare, and no speed is printed or recorded."""
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


def test_opponents_of_exact_kernels_compute_the_same(exact_cases: list[ExactCase]) -> None:
    """What PyTorch is measured with is the reference's, number by number, of the same types."""
    for case in exact_cases:
        found = case.eager(*case.inputs)
        for own, other in zip(found, case.expected(), strict=True):
            part = own[case.rows].numpy()
            assert (part.dtype, part.shape, part.tobytes()) == (other.dtype, other.shape, other.tobytes()), case.name
    assert len({case.name for case in exact_cases}) == len(exact_cases)


def test_every_exact_kernel_has_a_case(exact_cases: list[ExactCase], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cases compare with the reference are all kernels that there are, but for those of training."""
    launched: set[str] = set()
    launch = KernelInterface.__getitem__

    def record(self: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        launched.add(self.fn.__name__)
        return launch(self, grid)  # type: ignore[no-any-return]

    monkeypatch.setattr(KernelInterface, "__getitem__", record)
    for case in exact_cases:
        assert case.check().startswith("equal to the reference in "), case.name
    assert sorted(launched) == sorted(_exact_kernels())


def _exact_kernels() -> Iterator[str]:
    for path in (ROOT / "kernels" / "llmzip_kernels").glob("*.py"):
        if not path.name.startswith(("training_", "scan_")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                    yield node.name


@pytest.mark.usefixtures("without_gpu")
def test_exact_kernels_are_timed_beside_their_opponents(
    exact_cases: list[ExactCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One pass of several runs each; after the time for compiling that column is empty."""
    path = tmp_path / "results.csv"
    chosen = kernels._parse(["--repeats", "1", "--compile-for", "0", "--results", str(path)])
    cases = [case for case in exact_cases if case.name.startswith("product R24")]
    assert results.record("kernels", lambda: kernels.measure(cases, chosen), path, "made-up GPU") == 0
    name = "product R24 K72 N64, one limb"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    ways = ("kernel", "eager", "bfloat16", "floor")
    assert [(row["case"], row["metric"]) for row in rows] == [(f"{name}: {way}", "forward") for way in ways]
    assert all(float(row["value"]) > 0 for row in rows)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{name}: equal to the reference in 12 rows; eager: the same integers, ")
    table = [line.split(" | ") for line in told if line.startswith(f"| {name} ")]
    assert [(cells[2], cells[5]) for cells in table] == [("kernel", ""), ("eager", ""), ("bfloat16", "")]


@pytest.mark.usefixtures("without_gpu")
def test_every_way_has_its_row_and_its_bar(
    case: TrainingCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both passes of kernel, eager, compiled and others; the floor is recorded beside them, and the GPU."""
    path, picture = tmp_path / "results.csv", tmp_path / "times.png"
    chosen = kernels._parse(["--repeats", "2", "--results", str(path), "--picture", str(picture)])
    with_other = replace(case, others={"SDPA": square})
    assert results.record("kernels", lambda: kernels.measure([with_other], chosen), path, "made-up GPU") == 0
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    ways = ["kernel", "eager", "compiled", "SDPA", "floor"]
    assert [(row["case"], row["metric"]) for row in rows] == [
        (f"square of 4: {way}", metric) for metric in PASSES for way in ways
    ]
    assert all(row["device"].endswith("; made-up GPU") and row["unit"] == "s" for row in rows)
    assert [row["repeats"] for row in rows] == ["2", "2", "2", "2", ""] * 2
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| square of 4 ")]
    assert [line.split(" | ")[1:3] for line in table] == [[m, way] for m in PASSES for way in ways[:4]]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("without_gpu")
def test_wrong_gradient_leaves_no_speed(case: TrainingCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Though all values are right, nothing is printed or recorded, and the status is 1."""
    path = tmp_path / "results.csv"
    wrong = replace(case, kernels={"kernel": other_square})
    chosen = kernels._parse(["--results", str(path)])
    assert results.record("kernels", lambda: kernels.measure([case, wrong], chosen), path) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "square of 4: kernel: expected values and gradients as by PyTorch" in told.err
    assert not path.exists()


def test_number_that_is_none_is_wrong(case: TrainingCase) -> None:
    """Not a number is no small difference."""
    nothing = replace(case, kernels={"kernel": lambda x: (x * torch.nan,)})
    with pytest.raises(ExactnessError, match="found a difference of inf"):
        nothing.check()


def test_another_integer_is_wrong(exact_cases: list[ExactCase]) -> None:
    """One last place of one row is told of, and in which part of the result."""
    (case, *_) = (case for case in exact_cases if case.name.startswith("quantise"))

    def off(rows: Any) -> list[Tensor]:
        q, scale = case.view(rows)
        scale[1] = torch.nextafter(scale[1], scale[1] + 1)
        return [q, scale]

    with pytest.raises(ExactnessError, match="found 1 others of 5 in part 2 of 2"):
        replace(case, view=off).check()


def test_each_way_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those after the eighth, where the compiler's cache of one function is full and it would give up."""
    n_compiled = 0

    def count(graph: Any, _inputs: Any) -> Any:
        nonlocal n_compiled
        n_compiled += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
    for n in range(1, 13):
        compiled_by_torch(square)(torch.ones(n))
    assert n_compiled == 12


def test_floor_is_the_longer_of_moving_and_multiplying() -> None:
    """32 bytes and 4 operations."""
    work = Work(32, 4, torch.float32)
    assert floor_seconds(work, Rates(4.0, {torch.float32: 1.0})) == 8
    assert floor_seconds(work, Rates(32.0, {torch.float32: 0.5})) == 8
