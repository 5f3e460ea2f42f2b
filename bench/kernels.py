"""Triton kernels beside the same in PyTorch, eager and compiled, and beside what the device allows at best.

    python -m bench.kernels [--only NAME] [--repeats R] [--compile-for S] [--picture PNG]

Every kernel is first compared: those of the exact engine with the reference, with `==`; those of training with PyTorch
in float64, values and gradients. Where one differs, no speed is printed and the command ends with status 1. The floor
of a case is the time to move what it must move at the speed of a copy, or to multiply what it must multiply at the
speed of a large product, whichever is longer; both speeds are measured in the same run. Without a GPU kernels are only
compared, at small sizes, through Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import results
from bench.arguments import positive
from bench.kernels_picture import draw
from bench.results import Figure
from llmzip.errors import ExactnessError

if TYPE_CHECKING:
    from bench.kernels_timing import Case, Rates

DEFAULT_REPEATS, DEFAULT_COMPILE_SECONDS = 7, 600
HEADER = (
    "| case | pass | way | ms | eager / it | compiled / it | it / floor |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: |",
)
NO_GPU = "no GPU here: kernels are only checked, through Triton's interpreter; no speed is measured"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    import torch

    if torch.cuda.is_available():
        return results.record(
            "kernels", lambda: measure(_cases("cuda", chosen.only), chosen), chosen.results, accelerator()
        )
    os.environ.setdefault("TRITON_INTERPRET", "1")
    print(NO_GPU)
    try:
        for case in _cases("cpu", chosen.only):
            print(f"{case.name}: {case.check()}")
    except ExactnessError as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 1
    return 0


def accelerator() -> str:
    """The GPU, and the versions of what runs on it."""
    import torch
    import triton

    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, triton {triton.__version__}"


def measure(cases: Iterable[Case], chosen: argparse.Namespace) -> list[Figure]:
    """Compare and time cases on the GPU, one after the other, and print the table.

    Compiling takes most of the time, so that cases which come late are measured without it.
    """
    from bench.kernels_timing import measure_rates

    rates, start = measure_rates(), time.perf_counter()
    told: list[str] = []
    figures: list[Figure] = []
    for case in cases:
        told.append(f"{case.name}: {case.check()}; eager: {case.opponent}")
        compiled = time.perf_counter() - start < chosen.compile_for
        figures += _figures(case, rates, chosen.repeats, compiled=compiled)
    print(*told, sep="\n")
    print(f"\n{accelerator()}; {rates.bytes_per_s / 1e12:.2f} TB/s copied; medians of {chosen.repeats}\n")
    print(*HEADER, *_rows(figures), sep="\n")
    if chosen.picture is not None:
        draw(figures, chosen.picture)
    return figures


def _rows(figures: Sequence[Figure]) -> Iterator[str]:
    """A line for each way of each case and pass, beside eager and compiled PyTorch and the floor of the same."""
    value = {(figure.case, figure.metric): figure.value for figure in figures}
    for figure in figures:
        case, _, way = figure.case.rpartition(": ")
        if way != "floor":
            eager, compiled, floor = (
                value.get((f"{case}: {other}", figure.metric)) for other in ("eager", "compiled", "floor")
            )
            ratios = (
                eager and eager / figure.value,
                compiled and compiled / figure.value,
                floor and figure.value / floor,
            )
            cells = " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
            yield f"| {case} | {figure.metric} | {way} | {1000 * figure.value:.3f} | {cells} |"


def _cases(device: str, only: str) -> Iterator[Case]:
    from bench import kernel_cases, kernels_exact_attention, kernels_exact_products, kernels_exact_rows
    from bench import kernels_exact_selection as selection

    operations: tuple[Callable[[str, bool], Iterator[Case]], ...] = (
        *kernels_exact_products.OPERATIONS,
        *kernels_exact_attention.OPERATIONS,
        *selection.OPERATIONS,
        *kernels_exact_rows.OPERATIONS,
        *kernel_cases.OPERATIONS,
    )
    for operation in operations:
        yield from (case for case in operation(device, device == "cpu") if only in case.name)


def _figures(case: Case, rates: Rates, repeats: int, *, compiled: bool) -> Iterator[Figure]:
    from bench.kernels_timing import floor_seconds, seconds_by_way

    for one in case.passes(compiled=compiled):
        for name, seconds in seconds_by_way(one, repeats).items():
            yield Figure.timed(f"{case.name}: {name}", one.metric, seconds)
        yield Figure(f"{case.name}: floor", one.metric, floor_seconds(one.work, rates), "s")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description="Measure Triton kernels.")
    add = parser.add_argument
    add("--only", default="", metavar="NAME", help="cases with this in their names; default: all")
    add("--repeats", type=positive, default=DEFAULT_REPEATS, metavar="R", help=f"default: {DEFAULT_REPEATS}")
    add(
        "--compile-for", type=int, default=DEFAULT_COMPILE_SECONDS, metavar="S",
        help=f"seconds after which torch.compile is left out; default: {DEFAULT_COMPILE_SECONDS}",
    )  # fmt: skip
    add("--picture", type=Path, metavar="PNG", help="where to draw times as multiples of the floor")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
