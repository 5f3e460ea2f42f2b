# ruff: noqa: TID253
"""The two optimisers of a run and their learning rate; imports torch, loaded lazily as a whole.

Muon moves the matrices inside the blocks: each step is the momentum made nearly orthogonal, so all
directions of a matrix learn at the same rate. AdamW moves the embedding and the norm gains, which
are no linear maps between hidden spaces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True)
class OptimiserConfig:
    """Peak learning rates, decay and schedule.

    `warmup_steps` rise linearly, then the rates stay, and over the last `decay_share` of the run
    they fall linearly to 0. `weight_decay` keeps the matrices, and with them the activations, in
    a range that 8 bits can hold.
    """

    muon_rate: float
    adamw_rate: float
    weight_decay: float
    warmup_steps: int
    decay_share: float
    clip_norm: float = 1.0


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by five Newton-Schulz steps; matrices of one shape go together."""

    def __init__(self, matrices: Iterable[nn.Parameter], rate: float, weight_decay: float) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        groups = [{"params": group} for group in by_shape.values()]
        super().__init__(groups, {"lr": rate, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Move every matrix once; each must have a gradient."""
        for group in self.param_groups:
            matrices: list[Tensor] = group["params"]
            gradients: list[Tensor] = [matrix.grad for matrix in matrices]  # type: ignore[misc]
            for matrix in matrices:
                if not self.state[matrix]:
                    self.state[matrix]["momentum"] = torch.zeros_like(matrix)
            momenta = [self.state[matrix]["momentum"] for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
            rows, columns = matrices[0].shape
            moves = orthogonalise(torch.stack(ahead)) * max(1.0, rows / columns) ** 0.5
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, list(moves.to(matrices[0].dtype).unbind()), alpha=-group["lr"])


def orthogonalise(gradients: Tensor) -> Tensor:
    """Bring the singular values of each matrix of `[n, rows, columns]` near 1, keeping its directions.

    Five steps of a quintic iteration whose coefficients grow small singular values fast and leave
    them all between about 0.7 and 1.2. On a GPU in bfloat16: the result need only be roughly
    orthogonal.
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = gradients.bfloat16() if gradients.is_cuda else gradients
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def make_optimisers(model: nn.Module, config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """Give the matrices inside the blocks to Muon and everything else to AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if name.startswith("layers.") and parameter.ndim == 2 else others).append(parameter)
    muon = Muon(matrices, config.muon_rate, config.weight_decay)
    adamw = torch.optim.AdamW(
        others, lr=config.adamw_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=others[0].is_cuda
    )
    for optimiser in (muon, adamw):
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adamw]


def set_rates(optimisers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to `share` of its peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = share * group["peak_lr"]


def rate_share(config: OptimiserConfig, step: int, progress: float) -> float:
    """The share of the peak learning rate at `step`, when `progress` (0 to 1) of the run is done.

    >>> config = OptimiserConfig(0.02, 0.004, 0.02, warmup_steps=10, decay_share=0.5)
    >>> [round(rate_share(config, step, progress), 2) for step, progress in ((4, 0.0), (20, 0.2), (90, 0.75))]
    [0.5, 1.0, 0.5]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    cold = min(1.0, (1.0 - progress) / config.decay_share) if config.decay_share else 1.0
    return min(warm, max(cold, 0.0))
