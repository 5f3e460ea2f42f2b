# ruff: noqa: TID253
"""Makes of a learned hyperprior the integers that readers compute with; imports torch, loaded lazily as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.conditioning.network import MAX_LATENT, MAX_SHIFT, HyperpriorNetwork
from llmzip.conditioning.normal import MEAN_ONE, nearest_sigma_code
from llmzip_training.hyperprior import CODES_A_NAT, HyperpriorModel

Integers = NDArray[np.int64]


class _Slopes(NamedTuple):
    """How scales and means move with latents, and by how many bits sums of means are shifted."""

    scales: Integers
    means: Integers
    shift: int


@torch.no_grad()
def export(
    model: HyperpriorModel,
    levels: Tensor,
    features: Tensor,
    step_codes: Sequence[int],
    artefact_id: str,
    embedding: Tensor,
) -> HyperpriorNetwork:
    """The integers that readers compute with.

    Args:
        model: what was learned.
        levels: vectors whose latents tell how far latents go.
        features: of them.
        step_codes: of the steps of each row.
        artefact_id: of the model that is steered.
        embedding: of its tokens, float `[V, F]`.
    """
    latents = model.latents(levels, features)
    scale, text_shift, table = 1.0, 0, np.zeros((0, latents.shape[2]), dtype=np.int64)
    if model.source == "text":
        scale, text_shift, table = _table(model, embedding)
    slopes = _slopes(model, scale)
    scales = np.array([[nearest_sigma_code(one) for one in row] for row in model.log_scales.exp().tolist()])
    means = _whole((model.means * MEAN_ONE).round().clamp(-(2**15), 2**15 - 1))
    weights = _latent_weights(model, latents)
    steps = np.array(step_codes, dtype=np.int64)
    return HyperpriorNetwork(
        artefact_id, slopes.shift, steps, scales, means, slopes.scales, slopes.means, weights, text_shift, table
    )


def _slopes(model: HyperpriorModel, scale: float) -> _Slopes:
    """For latents that are `scale` times those of the model."""
    scales = (model.scale_slopes / scale * CODES_A_NAT * 16).round().clamp(-127, 127)
    means = model.mean_slopes / scale * MEAN_ONE
    steepest = means.abs().max().item() if means.numel() else 0.0
    shift = next((s for s in range(MAX_SHIFT, 0, -1) if steepest * 2**s <= 127), 0)
    return _Slopes(_whole(scales), _whole((means * 2**shift).round().clamp(-127, 127)), shift)


def _table(model: HyperpriorModel, embedding: Tensor) -> tuple[float, int, Integers]:
    """Latents as the mean of what each token adds: how many times the model's they are, a shift, and 8 bits a token."""
    added = ((embedding - model.centre[0]) / model.spread[0]) @ model.analysis[0]
    greatest = added.abs().max().item()
    scale = min(MAX_LATENT / max(model.limit.item(), 1e-6), 127 / max(greatest, 1e-6))
    shift = max(0, min(MAX_SHIFT, int(np.log2(127 / max(greatest * scale, 1e-6)))))
    # A half, for means are rounded down.
    table = ((added * scale + 0.5) * 2**shift).round().clamp(-128, 127)
    return scale, shift, _whole(table)


def _latent_weights(model: HyperpriorModel, latents: Tensor) -> Integers:
    P, k = latents.shape[1:]
    if model.source != "mean-scale":
        return np.ones((P, k, 1), dtype=np.int64)
    radius = min(MAX_LATENT, int(latents.abs().max().item()) + 2)
    values = torch.arange(-radius, radius + 1, dtype=latents.dtype, device=latents.device)
    likely = torch.exp2(-model.prior.bits(values[:, None].expand(-1, P * k))).T
    weights = (likely / likely.amax(dim=1, keepdim=True) * 65535).round()
    return _whole(weights).reshape(P, k, -1)


def _whole(values: Tensor) -> Integers:
    whole: Integers = values.cpu().numpy().astype(np.int64)
    return whole
