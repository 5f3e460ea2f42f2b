# ruff: noqa: TID253
"""What the rows of a conditioner cost when they are quantised, by gradients; imports torch, loaded lazily as a whole.

A coordinate y of a group with step d is coded as the integer round(y / d) under a normal distribution of mean 0 and
deviation s, cut into intervals of length d: bits = -log2(Phi((y + d/2) / s) - Phi((y - d/2) / s)). While it is trained
it gets noise from -d/2 to d/2 in place of the rounding error, so that the objective, bits of the text and bits of the
conditioner, has gradients by y, d and s. Source: Ballé et al., arXiv:1802.01436.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from llmzip.errors import ConfigError

Noise = Literal["uniform", "rounded"]
# A group also costs its step and its deviation, as 16-bit numbers.
GROUP_BITS = 32
# Of a step, in deviations, before there is anything to learn it from.
FIRST_STEP = 0.25
# Deviations from 0 beyond which the logarithm of the distribution function has no gradient in float64.
_FARTHEST = 1e6


class QuantisedRows(nn.Module):
    """Rows that know what they cost.

    Args:
        initial: float32 `[R, D]`.
        groups: the group of each row, int64 `[R]`, from 0 on and without gaps.
        deviation: of rows whose initial values are smaller.
    """

    groups: Tensor

    def __init__(self, initial: Tensor, groups: Tensor, deviation: float) -> None:
        super().__init__()
        if not len(initial):
            raise ConfigError("conditioner: expected prefix rows or shifts, found none")
        self.rows = nn.Parameter(initial.clone())
        self.register_buffer("groups", groups)
        found = [initial[groups == i].square().mean().sqrt().item() for i in range(int(groups.max()) + 1)]
        deviations = torch.tensor([max(one, deviation) for one in found], device=initial.device)
        self.log_deviations = nn.Parameter(deviations.log())
        self.log_steps = nn.Parameter((deviations * FIRST_STEP).log())

    @property
    def steps(self) -> Tensor:
        """The step of each group, `[G]`."""
        return self.log_steps.exp()

    def noised(self, noise: Tensor) -> Tensor:
        """The rows, moved by `noise` `[R, D]`, which is given in steps."""
        return self.rows + noise * self._of_rows(self.steps)

    def rounded(self) -> Tensor:
        """The rows as a decoder gets them; to gradients of the rows rounding is the identity."""
        steps = self._of_rows(self.steps)
        return self.rows + ((self.rows / steps).round() * steps - self.rows.detach())

    def bits(self, values: Tensor) -> Tensor:
        """Bits of rows `[R, D]` that `noised` or `rounded` gave, with what the groups themselves cost; float64."""
        steps, deviations = self._of_rows(self.steps.double()), self._of_rows(self.log_deviations.double().exp())
        return gaussian_bits(values.double(), steps, deviations).sum() + GROUP_BITS * len(self.log_steps)

    def _of_rows(self, values: Tensor) -> Tensor:
        return values[self.groups][:, None]


def gaussian_bits(values: Tensor, steps: Tensor, deviations: Tensor) -> Tensor:
    """-log2 of what a normal distribution has in the interval of length `steps` around `values`.

    All by logarithms and on the side where they are exact, so that neither far nor narrow intervals give infinity.
    """
    near = ((0.5 * steps - values.abs()) / deviations).clamp(min=-_FARTHEST)
    far = (near - steps / deviations).clamp(min=-10 * _FARTHEST)
    top = torch.special.log_ndtr(near)
    nats: Tensor = -(top + torch.log(-torch.expm1(torch.special.log_ndtr(far) - top)))
    return nats / math.log(2)


def uniform_noise(shape: torch.Size, seed: int, step: int) -> Tensor:
    """Numbers from -1/2 to 1/2, those of a step always the same, on the CPU."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return torch.rand(shape, generator=generator) - 0.5


def row_groups(n_prefix: int, n_shifts: int) -> Tensor:
    """The groups of a conditioner's rows: the whole prefix is one, each shift is its own.

    >>> row_groups(2, 3).tolist()
    [0, 0, 1, 2, 3]
    """
    first = 1 if n_prefix else 0
    return torch.tensor([0] * n_prefix + list(range(first, first + n_shifts)), dtype=torch.int64)
