# ruff: noqa: TID253
"""The optimisers of a run and their learning rate; imports torch, loaded lazily as a whole.

Muon moves the matrices inside the blocks: each step is the momentum made nearly orthogonal, so all
directions of a matrix learn at the same rate. AdamW then moves the embedding and the norm gains, which
are no linear maps between hidden spaces. Or AdamW moves everything. Sources: Loshchilov and Hutter,
"Decoupled Weight Decay Regularization", arXiv:1711.05101, for AdamW and cosine decay; Jordan et al., "Muon: An
optimizer for hidden layers in neural networks", 2024, for the coefficients.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llmzip.errors import ConfigError
from llmzip_training.config import expect_at_least, expect_positive, expect_share

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Peak learning rates, decay and schedule.

    Attributes:
        kind: `muon`, with AdamW for what is no matrix of a block, or `adamw` alone.
        adamw_rate, muon_rate: peak learning rates; `muon_rate` for Muon alone.
        weight_decay: keeps the matrices, and with them the activations, in a range that 8 bits can hold. Tensors of
            one dimension have none; nor have, beside Muon, the embeddings.
        warmup_steps: steps in which the rates rise linearly.
        rate_schedule: `wsd`, the rates stay and over the last `decay_share` of the run fall linearly, or `cosine`,
            they fall along half a cosine from the end of the warm-up on.
        decay_share: for `wsd`.
        final_share: of the peak, where the rates end.
        clip_norm: greatest norm of the gradient of all parameters together.
    """

    adamw_rate: float
    weight_decay: float
    warmup_steps: int
    kind: Literal["muon", "adamw"] = "muon"
    muon_rate: float = 0.0
    rate_schedule: Literal["wsd", "cosine"] = "wsd"
    decay_share: float = 0.0
    final_share: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and those that the kind or the schedule would not use."""
        for name in ("adamw_rate", "clip_norm"):
            expect_positive(f"optimiser.{name}", getattr(self, name))
        for name in ("weight_decay", "decay_share", "final_share"):
            expect_share(f"optimiser.{name}", getattr(self, name))
        expect_at_least("optimiser.warmup_steps", self.warmup_steps, 0)
        expect_at_least("optimiser.muon_rate", self.muon_rate, 0)
        if (self.kind == "muon") != (self.muon_rate > 0):
            raise ConfigError(
                f"optimiser.muon_rate: expected one for muon only, found {self.muon_rate:g} for {self.kind}"
            )
        if self.rate_schedule == "cosine" and self.decay_share:
            raise ConfigError(f"optimiser.decay_share: expected it for wsd only, found {self.decay_share:g} for cosine")


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
    """Muon for the matrices inside the blocks and AdamW for everything else, or AdamW for everything."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if name.startswith("layers.") and parameter.ndim == 2 else others).append(parameter)
    if config.kind == "muon":
        muon = Muon(matrices, config.muon_rate, config.weight_decay)
        optimisers = [muon, _adamw([{"params": others, "weight_decay": 0.0}], config.adamw_rate, eps=1e-10)]
    else:
        optimisers = [_adamw(_decay_groups(model.parameters(), config.weight_decay), config.adamw_rate, eps=1e-8)]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def _adamw(groups: list[dict[str, Any]], rate: float, eps: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=eps, fused=True)


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Decay for tensors of two or more dimensions only."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in parameters:
        (decayed if parameter.ndim >= 2 else kept).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def set_rates(optimisers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to `share` of its peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = share * group["peak_lr"]


def rate_share(config: OptimiserConfig, step: int, progress: float) -> float:
    """The share of the peak learning rate at `step`, when `progress` (0 to 1) of the run is done.

    In the warm-up of W steps it is (step + 1) / W. After that, with f = `final_share`:

        wsd:     f + (1 - f) min(1, (1 - progress) / decay_share)
        cosine:  f + (1 - f) (1 + cos(pi (step - W) / (steps - W))) / 2, steps = step / progress

    >>> config = OptimiserConfig(muon_rate=0.02, adamw_rate=0.004, weight_decay=0.02, warmup_steps=10, decay_share=0.5)
    >>> [round(rate_share(config, step, progress), 2) for step, progress in ((4, 0.0), (20, 0.2), (90, 0.75))]
    [0.5, 1.0, 0.5]
    """
    warm = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    fallen = _cosine(config, step, progress) if config.rate_schedule == "cosine" else _linear(config, progress)
    return min(warm, config.final_share + (1.0 - config.final_share) * fallen)


def _linear(config: OptimiserConfig, progress: float) -> float:
    return max(0.0, min(1.0, (1.0 - progress) / config.decay_share)) if config.decay_share else 1.0


def _cosine(config: OptimiserConfig, step: int, progress: float) -> float:
    """Runs by time have so many steps as their speed up to now promises."""
    if step <= config.warmup_steps or progress == 0.0:
        return 1.0
    if progress >= 1.0:
        return 0.0
    share = (step - config.warmup_steps) / (step / progress - config.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * share))
