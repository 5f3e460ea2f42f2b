# ruff: noqa: TID253
"""Learns hyperpriors of steering rows from a population of them; imports torch, so it is loaded lazily as a whole.

Every coordinate has a normal distribution with a mean and a deviation of its own, which are linear, the deviation in
its logarithm, in a few latents u of the row. Where they come from tells three kinds apart:

- `factorised`: there are none;
- `mean-scale`: an analysis of the row itself gives them. Rounded they are coded before the row, each under a
  distribution function that is learned; while training, uniform noise stands for their rounding. The objective is
  R_y + R_u, the bits of coordinates and of latents. The rows are rounded to fixed steps before, so there is no
  distortion to trade. Source: Ballé et al., arXiv:1802.01436, sections 3 and 6.1;
- `text`: the mean embedding of text that is already decoded gives them, the same for all rows, and nothing is coded.
  In an archive that is a chunk's first window, behind which its vectors stand.

`hyperprior_export` makes of each the integers that readers compute with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from llmzip.conditioning.network import MAX_LATENT
from llmzip_training.config import expect_at_least, expect_positive
from llmzip_training.latent_prior import LatentPrior
from llmzip_training.rate import gaussian_bits, uniform_noise

Source = Literal["factorised", "mean-scale", "text"]

# Logarithms of the deviations that codes can say.
_LEAST, _GREATEST = math.log(1 / 16), math.log(3968)
# Codes in a nat, by 16 codes an octave, and the greatest slope of 8 bits in units of 2**-4 codes.
CODES_A_NAT = 16 / math.log(2)
_MOST_SLOPE = 127 / 16 / CODES_A_NAT
# Deviation of the latents before they learn.
_FIRST_LATENT = 1.5
_LIMIT = MAX_LATENT - 1
# Of vectors, of which a fifth decides about penalties.
_RUNS = 25


@dataclass(frozen=True)
class FitConfig:
    """How a hyperprior is learned.

    Attributes:
        latents: of a row, also the rank of what is predicted from text.
        steps: of Adam, over all vectors at once.
        rate: learning rate at first; it falls linearly to 0.
        penalties: those tried, in vectors: how many others hold a coordinate's scale and mean to those of its row, or
            its slopes to 0. A fifth of the vectors decides.
        seed: of noise and of what is random at first.
    """

    latents: int = 2
    steps: int = 200
    rate: float = 0.03
    penalties: tuple[float, ...] = (8.0, 32.0, 128.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        expect_at_least("latents", self.latents, 1)
        expect_at_least("steps", self.steps, 1)
        expect_positive("rate", self.rate)


class HyperpriorModel(nn.Module):
    """Scales and means of P rows of D coordinates under k latents a row.

    Args:
        levels: whole numbers that it will learn from, `[N, P, D]`.
        features: of the text before them, `[N, F]`; used by `text`.
        source: of the latents.
        config: how many there are.
    """

    centre: Tensor
    spread: Tensor
    limit: Tensor

    def __init__(self, levels: Tensor, features: Tensor, source: Source, config: FitConfig) -> None:
        super().__init__()
        _, P, D = levels.shape
        k = 0 if source == "factorised" else config.latents
        self.source = source
        self.means = nn.Parameter(torch.zeros(P, D))
        deviations = levels.square().mean(dim=(0, 2)).sqrt().clamp(min=0.2)
        self.log_scales = nn.Parameter(deviations.log()[:, None].repeat(1, D))
        self.scale_slopes = nn.Parameter(torch.zeros(P, D, k))
        self.mean_slopes = nn.Parameter(torch.zeros(P, D, k))
        inputs = self._raw_inputs(levels, features)
        self.register_buffer("centre", inputs.mean(dim=0))
        self.register_buffer("spread", inputs.std(dim=0, correction=0).clamp(min=1e-3))
        self.register_buffer("limit", torch.tensor(float(_LIMIT)))
        generator = torch.Generator().manual_seed(config.seed)
        # What a text says is the same for all rows, and a table of all tokens.
        shape = (1 if source == "text" else P, inputs.shape[2], k)
        self.analysis = nn.Parameter(torch.randn(shape, generator=generator) * shape[1] ** -0.5)
        self.prior = LatentPrior(P * k if source == "mean-scale" else 0)
        if source == "mean-scale":
            self._begin_with_components(levels)

    def latents(self, levels: Tensor, features: Tensor) -> Tensor:
        """What the source gives, `[N, P, k]`, not rounded."""
        inputs = (self._raw_inputs(levels, features) - self.centre) / self.spread
        analysis = self.analysis.expand(levels.shape[1], -1, -1)
        return torch.einsum("npf,pfk->npk", inputs, analysis).clamp(-self.limit, self.limit)

    def coordinate_bits(self, levels: Tensor, latents: Tensor) -> Tensor:
        """R_y of each row, float64 `[N, P]`."""
        most = math.inf if self.source == "text" else _MOST_SLOPE
        slopes = self.scale_slopes.clamp(-most, most)
        log_scales = self.log_scales + torch.einsum("npk,pdk->npd", latents, slopes)
        means = self.means + torch.einsum("npk,pdk->npd", latents, self.mean_slopes)
        scales = log_scales.clamp(_LEAST, _GREATEST).double().exp()
        one = torch.ones((), dtype=torch.float64, device=levels.device)
        return gaussian_bits((levels - means).double(), one, scales).sum(dim=2)

    def latent_bits(self, latents: Tensor) -> Tensor:
        """R_u of each row, `[N, P]`; 0 where nothing is coded."""
        if self.source != "mean-scale":
            return torch.zeros(latents.shape[:2], device=latents.device)
        return self.prior.bits(latents.flatten(1)).view(latents.shape).sum(dim=2)

    def penalty(self, base: float, slopes: float) -> Tensor:
        """What holds scales and means to those of the row, and slopes to 0, in bits."""
        scales = self.log_scales.detach().exp()
        off = (self.log_scales - self.log_scales.mean(dim=1, keepdim=True)).square() + (self.means / scales).square()
        tilts = self.scale_slopes.square() + (self.mean_slopes / scales[..., None]).square()
        return base * off.sum() + slopes * _FIRST_LATENT**2 * tilts.sum()

    def _raw_inputs(self, levels: Tensor, features: Tensor) -> Tensor:
        if self.source == "text":
            return features[:, None].expand(-1, levels.shape[1], -1)
        return torch.cat((levels, levels.abs()), dim=2)

    @torch.no_grad()
    def _begin_with_components(self, levels: Tensor) -> None:
        """The first latent is how large a row is; the others are its principal components."""
        k, D = self.analysis.shape[2], levels.shape[2]
        self.analysis.zero_()
        for p in range(levels.shape[1]):
            standard = (torch.cat((levels[:, p], levels[:, p].abs()), dim=1) - self.centre[p]) / self.spread[p]
            sizes = torch.zeros(2 * D, 1)
            sizes[D:] = 1
            _, _, axes = torch.linalg.svd(standard[:, :D], full_matrices=False)
            axes = torch.cat((axes[: k - 1].T, torch.zeros(D, max(0, k - 1 - len(axes)))), dim=1)
            directions = torch.cat((sizes.to(axes), torch.cat((axes, torch.zeros_like(axes)))), dim=1)
            deviations = (standard @ directions).std(dim=0, correction=0).clamp(min=1e-3)
            self.analysis[p] = directions * (_FIRST_LATENT / deviations)
            self.scale_slopes[p, :, 0] = 0.2
            self.mean_slopes[p, :, 1:] = self.spread[p, :D, None] * axes * (deviations[1:] / _FIRST_LATENT)


def fit(
    levels: Tensor, features: Tensor, source: Source, config: FitConfig, penalties: tuple[float, float]
) -> HyperpriorModel:
    """Learn from vectors, with the penalties of scales and means, and of slopes."""
    model = HyperpriorModel(levels, features, source, config).to(levels.device)
    fast = [parameter for name, parameter in model.named_parameters() if name != "analysis"]
    # The analysis sums over many inputs.
    groups = [(fast, config.rate), ([model.analysis], config.rate / math.sqrt(model.analysis.shape[1]))]
    optimiser = torch.optim.Adam([{"params": p, "lr": rate, "peak": rate} for p, rate in groups])
    for step in range(config.steps):
        latents = model.latents(levels, features)
        if source == "mean-scale":
            latents = latents + uniform_noise(latents.shape, config.seed, step).to(latents.device)
        bits = model.coordinate_bits(levels, latents).sum() + model.latent_bits(latents).sum()
        optimiser.zero_grad()
        loss = bits + model.penalty(*penalties)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * (1 - step / config.steps)
        optimiser.step()
    if source == "text":
        # An odd text says no more than the oddest that was learned from.
        model.limit.fill_(model.latents(levels, features).abs().max().item())
    return model


@torch.no_grad()
def total_bits(model: HyperpriorModel, levels: Tensor, features: Tensor) -> tuple[float, float]:
    """R_y and R_u of vectors, with the latents of the analysis, rounded where they are coded."""
    latents = model.latents(levels, features)
    if model.source == "mean-scale":
        latents = latents.round()
    return model.coordinate_bits(levels, latents).sum().item(), model.latent_bits(latents).sum().item()


@dataclass(frozen=True)
class Fitted:
    """One kind of hyperprior.

    Attributes:
        model: learned from all vectors.
        penalties: of scales and means, and of slopes.
        unseen_bits: of a fifth of the vectors, a coordinate, when it was learned from the others.
    """

    model: HyperpriorModel
    penalties: tuple[float, float]
    unseen_bits: float


def fit_all(levels: Tensor, features: Tensor, config: FitConfig) -> dict[Source, Fitted]:
    """Learn all three kinds, each with the penalty that suits a fifth of the vectors when it has not seen them."""
    found: dict[Source, Fitted] = {}
    found["factorised"] = _best(levels, features, "factorised", config, [(one, 0.0) for one in config.penalties])
    base, _ = found["factorised"].penalties
    sources: tuple[Source, ...] = ("mean-scale", "text")
    for source in sources:
        found[source] = _best(levels, features, source, config, [(base, one) for one in config.penalties])
    return found


def _best(
    levels: Tensor, features: Tensor, source: Source, config: FitConfig, candidates: Sequence[tuple[float, float]]
) -> Fitted:
    # Neighbours are often of one document, which their texts tell: whole runs of them are left out.
    run = max(1, len(levels) // _RUNS)
    chosen = torch.arange(len(levels), device=levels.device) // run % 5 == 4
    seen, unseen = (levels[~chosen], features[~chosen]), (levels[chosen], features[chosen])
    short = replace(config, steps=max(1, config.steps // 2))
    bits = {pair: sum(total_bits(fit(*seen, source, short, pair), *unseen)) for pair in candidates}
    pair = min(bits, key=bits.__getitem__)
    return Fitted(fit(levels, features, source, config, pair), pair, bits[pair] / unseen[0].numel())
