"""Triton kernels beside the same in PyTorch, eager and compiled, and beside what the device allows at best.

    python -m bench.kernels [--only NAME] [--repeats R] [--picture PNG]

Every kernel is first compared with PyTorch in float64, values and gradients; where one differs, no speed is printed
and the command ends with status 1. The floor of a case is the time to move what it must move at the speed of a copy, or
to multiply what it must multiply at the speed of a large product, whichever is longer; both speeds are measured in the
same run. Without a GPU kernels are only compared, at small sizes, through Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import results
from bench.arguments import positive
from bench.results import Figure
from bench.timing import interleave, seconds_of
from llmzip.errors import ExactnessError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.kernel_cases import Case, Way

DEFAULT_REPEATS = 7
# A repetition runs a way so often that it takes about as long.
BURST_SECONDS = 0.05
PASSES = ("forward", "forward and backward")
HEADER = (
    "| case | pass | way | ms | eager / it | compiled / it | it / floor |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: |",
)
NO_GPU = "no GPU here: kernels are only checked, through Triton's interpreter; no speed is measured"


class Rates(NamedTuple):
    """What a device does at best: bytes moved (read or written) in a second, and flops by type of element."""

    bytes_per_s: float
    flops_per_s: Mapping[torch.dtype, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    import torch

    if torch.cuda.is_available():
        return results.record(
            "kernels", lambda: measure(list(_cases("cuda", chosen.only)), chosen), chosen.results, accelerator()
        )
    os.environ.setdefault("TRITON_INTERPRET", "1")
    print(NO_GPU)
    try:
        for case in _cases("cpu", chosen.only):
            print(f"{case.name}: {check(case)}")
    except ExactnessError as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 1
    return 0


def accelerator() -> str:
    """The GPU, and the versions of what runs on it."""
    import torch
    import triton

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, triton {triton.__version__}"


def check(case: Case) -> str:
    """Compare the kernels of a case with PyTorch in float64; how far each is off.

    Raises:
        ExactnessError: one of them is too far off.
    """
    exact = tuple(x.detach().double().requires_grad_() for x in case.inputs)
    expected = _results(case.eager, exact)
    told = []
    for name, kernel in case.kernels.items():
        found = _results(kernel, case.inputs)
        off = max(map(_difference, found, expected))
        if not off <= case.tolerance:
            raise ExactnessError(
                f"{case.name}: {name}: expected values and gradients as by PyTorch, to {case.tolerance:g} of the "
                f"greatest, found a difference of {off:g}"
            )
        told.append(f"{name} off by {off:.1e}")
    return f"{', '.join(told)} of the greatest value; allowed {case.tolerance:g}"


def measure(cases: Sequence[Case], chosen: argparse.Namespace) -> list[Figure]:
    """Compare and time cases on the GPU, and print the table."""
    told = [f"{case.name}: {check(case)}" for case in cases]
    rates = measure_rates({case.inputs[0].dtype for case in cases})
    figures = [figure for case in cases for figure in _figures(case, rates, chosen.repeats)]
    print(*told, sep="\n")
    print(f"\n{accelerator()}; {rates.bytes_per_s / 1e12:.2f} TB/s copied; medians of {chosen.repeats}\n")
    print(*HEADER, *_rows(figures), sep="\n")
    if chosen.picture is not None:
        draw(figures, chosen.picture)
    return figures


def measure_rates(dtypes: Iterable[torch.dtype]) -> Rates:
    """Of a copy of 1 GiB, and of products of two matrices of each type, the best of some runs."""
    import torch

    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = min(_bursts(lambda: target.copy_(source))() for _ in range(5))
    flops = {}
    for dtype in dtypes:
        size = 4096 if dtype == torch.float64 else 8192
        a = torch.ones(size, size, device="cuda", dtype=dtype)
        flops[dtype] = 2 * size**3 / min(_bursts(partial(torch.mm, a, a))() for _ in range(5))
    return Rates(2 * source.numel() * source.itemsize / copy, flops)


def floor_seconds(case: Case, rates: Rates, backward: bool) -> float:
    """The least time that a case can take."""
    moved = case.n_bytes[backward] / rates.bytes_per_s
    return max(moved, case.n_flops[backward] / rates.flops_per_s[case.inputs[0].dtype])


def _rows(figures: Sequence[Figure]) -> Iterable[str]:
    """A line for each way of each case and pass, beside eager and compiled PyTorch and the floor of the same."""
    value = {(figure.case, figure.metric): figure.value for figure in figures}
    for figure in figures:
        case, _, way = figure.case.rpartition(": ")
        if way != "floor":
            eager, compiled, floor = (
                value[f"{case}: {other}", figure.metric] for other in ("eager", "compiled", "floor")
            )
            ratios = (eager / figure.value, compiled / figure.value, figure.value / floor)
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            yield f"| {case} | {figure.metric} | {way} | {1000 * figure.value:.3f} | {cells} |"


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw each way of each case and pass as a multiple of its floor; a line says so where that cannot be."""
    try:
        from matplotlib import figure as drawing
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return
    floors = {(f.case.rpartition(": ")[0], f.metric): f.value for f in figures if f.case.endswith(": floor")}
    timed = [f for f in figures if not f.case.endswith(": floor")]
    names = [f"{f.case}, {f.metric}" for f in timed]
    multiples = [f.value / floors[f.case.rpartition(": ")[0], f.metric] for f in timed]
    picture = drawing.Figure(figsize=(10, 1 + 0.25 * len(timed)), layout="constrained")
    axes = picture.subplots()
    axes.barh(names, multiples)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time, as a multiple of the floor")
    axes.grid(axis="x", alpha=0.3)
    picture.savefig(path, dpi=150)


def _cases(device: str, only: str) -> Iterable[Case]:
    from bench.kernel_cases import OPERATIONS

    for operation in OPERATIONS:
        yield from (case for case in operation(device, device == "cpu") if only in case.name)


def _figures(case: Case, rates: Rates, repeats: int) -> Iterable[Figure]:
    import torch

    compiled = torch.compile(lambda *inputs: case.eager(*inputs), dynamic=False)
    ways = {**case.kernels, "eager": case.eager, "compiled": compiled, **case.others}
    for backward, metric in enumerate(PASSES):
        bursts = {name: _bursts(_step(way, case.inputs, bool(backward))) for name, way in ways.items()}
        runs: dict[str, list[float]] = {name: [] for name in ways}
        # What `interleave` times is a burst; what counts is one run of it.
        interleave({name: partial(_note, runs[name], burst) for name, burst in bursts.items()}, repeats)
        for name, seconds in runs.items():
            yield Figure.timed(f"{case.name}: {name}", metric, seconds)
        yield Figure(f"{case.name}: floor", metric, floor_seconds(case, rates, bool(backward)), "s")


def _note(seconds: list[float], step: Callable[[], float]) -> None:
    seconds.append(step())


def _bursts(step: Callable[[], object]) -> Callable[[], float]:
    """A function that runs `step` often enough to be timed, and gives the seconds of one run."""
    import torch

    def run(n: int) -> None:
        for _ in range(n):
            step()
        torch.cuda.synchronize()

    run(3)
    n_runs = max(1, round(BURST_SECONDS / seconds_of(lambda: run(1))))
    return lambda: seconds_of(lambda: run(n_runs)) / n_runs


def _step(way: Way, inputs: tuple[Tensor, ...], backward: bool) -> Callable[[], object]:
    """A run of a way, gradients included or not."""
    import torch

    with torch.no_grad():
        upstream = [_upstream(y) for y in way(*inputs)]

    def forward() -> None:
        with torch.no_grad():
            way(*inputs)

    return (lambda: torch.autograd.grad(way(*inputs), inputs, upstream)) if backward else forward


def _results(way: Way, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What a way gives, and its gradients for gradients from above that are the same each time."""
    import torch

    outputs = way(*inputs)
    gradients = torch.autograd.grad(outputs, inputs, [_upstream(y) for y in outputs])
    return [x.detach() for x in (*outputs, *gradients)]


def _upstream(y: Tensor) -> Tensor:
    """Numbers from -1 to 1 in no plain order."""
    import torch

    return torch.arange(y.numel(), device=y.device).mul(0.7390851).sin().to(y.dtype).view(y.shape)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The greatest, as a share of the greatest expected number; infinite where one is not finite."""
    off = (found.double() - expected).abs().max() / expected.abs().max()
    return float(off) if off.isfinite() else float("inf")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description="Measure Triton kernels.")
    add = parser.add_argument
    add("--only", default="", metavar="NAME", help="cases with this in their names; default: all")
    add("--repeats", type=positive, default=DEFAULT_REPEATS, metavar="R", help=f"default: {DEFAULT_REPEATS}")
    add("--picture", type=Path, metavar="PNG", help="where to draw times as multiples of the floor")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
