# ruff: noqa: TID253
"""How `bench.kernels` times: in bursts long enough for a clock, beside floors from rates of the same device.

Imports torch, so it is loaded lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch

from bench.timing import seconds_of

# A burst runs a way so often that it takes about as long.
BURST_SECONDS = 0.05
_RATE_BURSTS = 5
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int8)

Step = Callable[[], object]
Way = Callable[..., Sequence[torch.Tensor]]


class Work(NamedTuple):
    """What a pass must do at least.

    Attributes:
        n_bytes: to be read or written, each once.
        n_operations: additions and multiplications of products of matrices.
        dtype: of what is multiplied.
    """

    n_bytes: int
    n_operations: int
    dtype: torch.dtype


class Pass(NamedTuple):
    """What is timed together.

    Attributes:
        metric: what it is of an operation, such as `forward`.
        ways: to the same, or to something of a like cost.
        work: of a run of any way.
        runs: of a way in each of its steps.
    """

    metric: str
    ways: Mapping[str, Step]
    work: Work
    runs: int = 1


class Case(Protocol):
    """One operation at one size."""

    @property
    def name(self) -> str:
        """The operation, its sizes and the type of its elements."""

    @property
    def opponent(self) -> str:
        """What the ways in PyTorch compute."""

    def check(self) -> str:
        """Compare the kernels with what they should compute, and say how they compare.

        Raises:
            ExactnessError: one of them computes something else.
        """

    def passes(self, *, compiled: bool) -> Iterator[Pass]:
        """What is timed; a way compiled by PyTorch is among it where that is asked for, and natural."""


class Rates(NamedTuple):
    """What a device does at best: bytes moved (read or written) in a second, and operations by type of element."""

    bytes_per_s: float
    operations_per_s: Mapping[torch.dtype, float]


def measure_rates() -> Rates:
    """Of a copy of 1 GiB, and of products of two matrices of each type, the best of some bursts."""
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = _least_seconds(lambda: target.copy_(source))
    return Rates(2 * source.numel() * source.itemsize / copy, {dtype: _product_rate(dtype) for dtype in _DTYPES})


def floor_seconds(work: Work, rates: Rates) -> float:
    """The least time that so much work can take."""
    return max(work.n_bytes / rates.bytes_per_s, work.n_operations / rates.operations_per_s[work.dtype])


def seconds_by_way(one: Pass, repeats: int) -> dict[str, list[float]]:
    """Seconds of a run of each way, in as many bursts; ways take turns."""
    bursts = {name: _bursts(step) for name, step in one.ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in bursts}
    for _ in range(repeats):
        for name, burst in bursts.items():
            seconds[name].append(burst() / one.runs)
    return seconds


def repeated(step: Step, runs: int) -> Step:
    """A step that runs another so often, on a GPU by one CUDA graph: small kernels take longer to launch than to run.

    As the engine does with its steps; memory of earlier results is taken again by later ones.
    """
    step()
    if not torch.cuda.is_available():
        return lambda: [step() for _ in range(runs)]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(runs):
            step()
    return graph.replay


def compiled_by_torch(way: Way) -> Way:
    """A way as `torch.compile` makes it; earlier ones are compiled no longer.

    All of them are one function to its cache, which takes eight kinds of inputs and then, silently, compiles no more.
    """
    torch.compiler.reset()
    return torch.compile(lambda *inputs: way(*inputs), dynamic=False)


def _product_rate(dtype: torch.dtype) -> float:
    size = 4096 if dtype == torch.float64 else 8192
    a = torch.ones(size, size, device="cuda", dtype=dtype)
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm
    return 2 * size**3 / _least_seconds(partial(multiply, a, a.t()))


def _least_seconds(step: Step) -> float:
    burst = _bursts(step)
    return min(burst() for _ in range(_RATE_BURSTS))


def _bursts(step: Step) -> Callable[[], float]:
    """A function that runs `step` often enough to be timed, and gives the seconds of one run."""

    def run(n: int) -> None:
        for _ in range(n):
            step()
        torch.cuda.synchronize()

    run(2)
    n_runs = max(1, round(BURST_SECONDS / seconds_of(lambda: run(1))))
    return lambda: seconds_of(lambda: run(n_runs)) / n_runs
