# ruff: noqa: TID253
"""How probable the latents of a hyperprior are, learned; imports torch, so it is loaded lazily as a whole.

Source: Ballé et al., arXiv:1802.01436, section 6.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class LatentPrior(nn.Module):
    """A distribution function for each of C channels, monotone by construction.

    Args:
        n_channels: C.
        spread: of the values at first.
    """

    _WIDTHS = (1, 3, 3, 1)

    def __init__(self, n_channels: int, spread: float = 4.0) -> None:
        super().__init__()
        n_layers = len(self._WIDTHS) - 1
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        for i in range(n_layers):
            inner, outer = self._WIDTHS[i : i + 2]
            first = math.log(math.expm1(spread ** (-1 / n_layers) / outer))
            self.matrices.append(nn.Parameter(torch.full((n_channels, outer, inner), first)))
            ramp = torch.linspace(-0.5, 0.5, outer) if outer > 1 else torch.zeros(1)
            self.biases.append(nn.Parameter(ramp.repeat(n_channels, 1)[..., None]))
            if i < n_layers - 1:
                self.factors.append(nn.Parameter(torch.zeros(n_channels, outer, 1)))

    def bits(self, values: Tensor) -> Tensor:
        """-log2 of what the distributions have from value - 1/2 to value + 1/2, for `[N, C]`."""
        below, above = self._logits(values - 0.5), self._logits(values + 0.5)
        # On the side of the median where the difference is exact.
        side = torch.where(below + above > 0, -1.0, 1.0)
        inside = (torch.sigmoid(side * above) - torch.sigmoid(side * below)).abs()
        return -inside.clamp(min=2.0**-24).log2()

    def _logits(self, values: Tensor) -> Tensor:
        x = values.T[:, None, :]
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = functional.softplus(matrix) @ x + bias
            if i < len(self.factors):
                x = x + torch.tanh(self.factors[i]) * torch.tanh(x)
        return x[:, 0].T
