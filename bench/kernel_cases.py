# ruff: noqa: TID253
"""What `bench.kernels` measures of training: operations at some sizes, each by its kernels and by others.

An operation is a function in `OPERATIONS` that makes its cases, at sizes for a GPU or, for Triton's interpreter, at
small ones. Another operation needs another such function and nothing else. Imports torch and Triton, so it is loaded
lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from bench.kernels_timing import Pass, Step, Way, Work, compiled_by_torch
from llmzip.errors import ExactnessError
from llmzip_kernels.scan_cumulative_sum import METHODS as SUM_METHODS
from llmzip_kernels.scan_cumulative_sum import cumulative_sum
from llmzip_kernels.scan_protection import METHODS as PROTECTION_METHODS
from llmzip_kernels.scan_protection import protect_and_attack
from llmzip_kernels.training_selective_attention import Selection, selective_attention
from llmzip_training import selection as eager_selection

PASSES = ("forward", "forward and backward")


@dataclass(frozen=True)
class TrainingCase:
    """One operation of training at one size.

    Attributes:
        name: the operation, its sizes and the type of its elements.
        opponent: what `eager` and `others` compute.
        inputs: of every way; all want gradients.
        kernels: ways that must agree with `eager`.
        eager: the operation in PyTorch, also measured compiled.
        tolerance: the greatest difference from `eager` in float64, as a share of the greatest element.
        n_bytes: what must be moved at least, forward, and forward and backward.
        n_flops: what must be multiplied and added at least, likewise.
        others: ways to something else of a like cost, only timed.
    """

    name: str
    opponent: str
    inputs: tuple[Tensor, ...]
    kernels: Mapping[str, Way]
    eager: Way
    tolerance: float
    n_bytes: tuple[int, int]
    n_flops: tuple[int, int] = (0, 0)
    others: Mapping[str, Way] = field(default_factory=dict)

    def check(self) -> str:
        """Compare the kernels with PyTorch in float64, gradients too; how far each is off.

        Raises:
            ExactnessError: one of them is too far off.
        """
        exact = tuple(x.detach().double().requires_grad_() for x in self.inputs)
        expected = _results(self.eager, exact)
        told = []
        for name, kernel in self.kernels.items():
            off = max(map(_difference, _results(kernel, self.inputs), expected))
            if not off <= self.tolerance:
                raise ExactnessError(
                    f"{self.name}: {name}: expected values and gradients as by PyTorch, to {self.tolerance:g} of the "
                    f"greatest, found a difference of {off:g}"
                )
            told.append(f"{name} off by {off:.1e}")
        return f"{', '.join(told)} of the greatest value; allowed {self.tolerance:g}"

    def passes(self, *, compiled: bool) -> Iterator[Pass]:
        """Forward, then forward and backward."""
        ways = {**self.kernels, "eager": self.eager}
        if compiled:
            ways["compiled"] = compiled_by_torch(self.eager)
        for backward, metric in enumerate(PASSES):
            steps = {name: _step(way, self.inputs, bool(backward)) for name, way in (ways | dict(self.others)).items()}
            yield Pass(metric, steps, Work(self.n_bytes[backward], self.n_flops[backward], self.inputs[0].dtype))


def attention(device: str, small: bool) -> Iterator[TrainingCase]:
    """Selective attention of training, its memory penalty's sums included; SDPA is attention without selection."""
    shapes = [(1, 4, 2, 70, 16, torch.float32), (1, 2, 2, 33, 8, torch.float64)]
    if not small:
        half, single = torch.bfloat16, torch.float32
        shapes = [(16, 8, 4, 512, 64, half), (8, 12, 12, 1024, 64, half), (4, 12, 12, 2048, 64, half)]
        shapes += [(8, 12, 12, 1024, 64, single)]
    for B, H, Hk, T, K, dtype in shapes:
        inputs = _normal(device, dtype, *((B, n, T, K) for n in (H, Hk, Hk)))
        scale = K**-0.5
        n_rows, pairs = B * (H + Hk) * T * K * dtype.itemsize, B * T * (T + 1) // 2
        yield TrainingCase(
            f"selective attention B{B} H{H}/{Hk} T{T} K{K} {_name(dtype)}",
            "F of a block of queries in memory, and a softmax; SDPA has no selection, and no penalty",
            inputs,
            {"kernel": partial(_fused_attention, Selection(scale))},
            partial(_eager_attention, scale),
            {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype],
            (2 * n_rows, 5 * n_rows),
            # Scores and mixed values of each head, and scores of the selecting one; backward, five products and two.
            (2 * K * pairs * (2 * H + 1), 2 * K * pairs * (7 * H + 3)),
            {"SDPA": _plain_attention},
        )


def cumulative_sums(device: str, small: bool) -> Iterator[TrainingCase]:
    """Over the queries of a matrix of scores, exclusive, as F is summed up."""
    shapes = [(2, 37, 5)] if small else [(16, 1024, 1024), (4, 4096, 1024)]
    for shape in shapes:
        for dtype in (torch.float32, torch.float64):
            (x,) = _normal(device, dtype, shape)
            size = x.numel() * dtype.itemsize
            yield TrainingCase(
                f"cumulative sum {'x'.join(map(str, shape))} {_name(dtype)}",
                "cumsum of the rows but the last, behind a row of zeros",
                (x,),
                {method: partial(_kernel_sum, method) for method in SUM_METHODS},
                _eager_sum,
                _scan_tolerance(dtype),
                (2 * size, 4 * size),
            )


def protection(device: str, small: bool) -> Iterator[TrainingCase]:
    """Protect and attack over the queries of a matrix of scores; eager by doubling spans of turns."""
    shapes = [(2, 37, 5)] if small else [(16, 1024, 1024)]
    for shape in shapes:
        for dtype in (torch.float32, torch.float64):
            inputs = tuple(x.detach().abs().requires_grad_() for x in _normal(device, dtype, shape, shape))
            size = inputs[0].numel() * dtype.itemsize
            yield TrainingCase(
                f"protect and attack {'x'.join(map(str, shape))} {_name(dtype)}",
                "spans of turns, merged with those before them, twice as long each time",
                inputs,
                {method: partial(_kernel_protection, method) for method in PROTECTION_METHODS},
                _eager_protection,
                _scan_tolerance(dtype),
                (3 * size, 6 * size),
            )


OPERATIONS: tuple[Callable[[str, bool], Iterator[TrainingCase]], ...] = (attention, cumulative_sums, protection)


def _fused_attention(selection: Selection, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return selective_attention(q, k, v, selection)


def _eager_attention(scale: float, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """As it is trained: sums are in float32 where heads are in bfloat16."""
    with torch.autocast(q.device.type, torch.bfloat16, enabled=q.dtype == torch.bfloat16):
        y, blocks = eager_selection.selective_attention(q, k, v, scale, eager_selection.SelectionRules())
    return y, torch.cat([block.clamp(max=1).sum(dim=-1) for block in blocks], dim=1)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return (functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1]),)


def _kernel_sum(method: str, x: Tensor) -> tuple[Tensor, ...]:
    return (cumulative_sum(x, exclusive=True, method=method),)  # type: ignore[arg-type]


def _eager_sum(x: Tensor) -> tuple[Tensor, ...]:
    return (functional.pad(x, (0, 0, 1, 0))[..., :-1, :].cumsum(dim=-2),)


def _kernel_protection(method: str, attack: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
    return (protect_and_attack(attack, gain, method=method),)  # type: ignore[arg-type]


def _eager_protection(attack: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
    """Spans that end at each turn, merged with those before them, twice as long each time."""
    net = attack - functional.pad(gain, (0, 0, 1, 0))[..., :-1, :]
    left, damage = (-net).relu(), net.relu()
    span, length = 1, attack.shape[-2]
    while span < length:
        earlier_left, earlier_damage = (functional.pad(x, (0, 0, span, 0))[..., :length, :] for x in (left, damage))
        left, damage = left + (earlier_left - damage).relu(), earlier_damage + (damage - earlier_left).relu()
        span *= 2
    return (damage,)


def _normal(device: str, dtype: torch.dtype, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Normal numbers that want gradients, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes)


def _scan_tolerance(dtype: torch.dtype) -> float:
    """Of sums of up to 4,096 normal numbers by a chain of additions, a share of the greatest sum."""
    return 1e-4 if dtype == torch.float32 else 1e-12


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _step(way: Way, inputs: tuple[Tensor, ...], backward: bool) -> Step:
    """A run of a way, gradients included or not."""
    with torch.no_grad():
        upstream = [_upstream(y) for y in way(*inputs)]

    def forward() -> None:
        with torch.no_grad():
            way(*inputs)

    return (lambda: torch.autograd.grad(way(*inputs), inputs, upstream)) if backward else forward


def _results(way: Way, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What a way gives, and its gradients for gradients from above that are the same each time."""
    outputs = way(*inputs)
    gradients = torch.autograd.grad(outputs, inputs, [_upstream(y) for y in outputs])
    return [x.detach() for x in (*outputs, *gradients)]


def _upstream(y: Tensor) -> Tensor:
    """Numbers from -1 to 1 in no plain order."""
    return torch.arange(y.numel(), device=y.device).mul(0.7390851).sin().to(y.dtype).view(y.shape)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The greatest, as a share of the greatest expected number; infinite where one is not finite."""
    off = (found.double() - expected).abs().max() / expected.abs().max()
    return float(off) if off.isfinite() else float("inf")
