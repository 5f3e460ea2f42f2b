# ruff: noqa: TID253
"""Trains vectors for one chunk at a time, while it is encoded; imports torch, so it is loaded lazily as a whole.

The chunk brings them behind its first window, so the windows after it are what they are trained on, as the encoder cuts
them. Each step takes one of them: in the same time vectors gain more by many steps than by whole ones. The objective is
the bits of those windows and of the rounded rows. The rows of the chunk before are where those of the next begin, for
neighbours are often alike.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.allocator import keep_freed_memory
from llmzip.conditioning.conditioning import ChunkRows
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.normal import MAX_RADIUS, nearest_code, step_of
from llmzip.models.artefact import Artefact
from llmzip.windows import Window, Windowing
from llmzip_training.conditioned import ConditionedModel, token_nats
from llmzip_training.config import expect_at_least, expect_positive
from llmzip_training.frozen import FrozenModel, load_frozen
from llmzip_training.rate import QuantisedRows, row_groups, uniform_noise
from llmzip_training.steering import FIRST_DEVIATION, SCALE_RATE


@dataclass(frozen=True)
class ChunkVectorsConfig:
    """How vectors of chunks are trained.

    Attributes:
        seconds: for each chunk; at least one step is taken.
        rate: learning rate at first, in standard deviations of the embeddings; it falls linearly to 0.
        seed: of the noise that stands for rounding.
    """

    seconds: float
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        expect_at_least("seconds", self.seconds, 0)
        expect_positive("rate", self.rate)


def trainer_for(
    config: ChunkVectorsConfig,
    artefact: Artefact,
    windowing: Windowing,
    network: HyperpriorNetwork | None,
    threads: int | None = None,
) -> ChunkVectorsTrainer:
    """The trainer for chunks of a model; memory and threads of this process are set for training."""
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    return ChunkVectorsTrainer(load_frozen(artefact), windowing, config, network)


class _Windows(NamedTuple):
    """Targets `[n, T]`, filled up with BOS, and which of them are coded by these windows."""

    targets: Tensor
    coded: Tensor


class ChunkVectorsTrainer:
    """Gives the rows of one chunk after the other.

    Args:
        model: what they steer.
        windowing: how chunks are covered.
        config: how they are trained.
        network: of a learned hyperprior, to whose steps rows are rounded; without one each row learns its own.
    """

    def __init__(
        self, model: FrozenModel, windowing: Windowing, config: ChunkVectorsConfig, network: HyperpriorNetwork | None
    ) -> None:
        self._model, self._windowing, self._config = ConditionedModel(model), windowing, config
        self._device = model.embed_tokens.weight.device
        self._rate = config.rate * model.embed_tokens.weight.std().item()
        self._steps = None if network is None else [float(step_of(int(code))) for code in network.step_codes]
        self._last = torch.zeros(model.config.n_layers + 1, model.config.width, device=self._device)

    def __call__(self, tokens: NDArray[np.int32]) -> ChunkRows | None:
        """Rows for a chunk of these tokens; None where it has but one window, or training diverged."""
        windows = list(self._windowing.cover(len(tokens)))[1:]
        if not windows:
            return None
        filled = self._fill(tokens.astype(np.int64), windows)
        rows = QuantisedRows(self._last, row_groups(0, len(self._last)).to(self._device), FIRST_DEVIATION * self._rate)
        self._train(rows, filled)
        found = ChunkRows(rows.rows.detach().cpu().numpy(), rows.steps.detach().tolist())
        usable = _can_be_rounded(found)
        self._last = rows.rows.detach().clone() if usable else torch.zeros_like(self._last)
        return found if usable else None

    def _train(self, rows: QuantisedRows, windows: _Windows) -> None:
        optimiser = self._optimiser(rows)
        end, step, progress = time.monotonic() + self._config.seconds, 0, 0.0
        while progress < 1:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * (1 - progress)
            optimiser.zero_grad()
            self._loss(rows, windows, step).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            progress = 1 - (end - time.monotonic()) / self._config.seconds if self._config.seconds else 1.0

    def _loss(self, rows: QuantisedRows, windows: _Windows, step: int) -> Tensor:
        """Nats of all windows, by that of this step, and of the rows."""
        noise = uniform_noise(rows.rows.shape, self._config.seed, step).to(self._device)
        noised = rows.noised(noise)
        i = step % len(windows.targets)
        targets, coded = (part[i : i + 1] for part in windows)
        nats = (token_nats(self._model, targets, None, noised) * coded).sum() * (windows.coded.sum() / coded.sum())
        loss: Tensor = nats + math.log(2) * rows.bits(noised)
        return loss

    def _optimiser(self, rows: QuantisedRows) -> torch.optim.Adam:
        scales = [rows.log_deviations]
        if self._steps is None:
            scales.append(rows.log_steps)
        else:
            rows.log_steps.data = torch.tensor(self._steps, device=self._device).log()
            rows.log_steps.requires_grad = False
        groups = [
            {"params": [rows.rows], "lr": self._rate, "peak": self._rate},
            {"params": scales, "lr": SCALE_RATE, "peak": SCALE_RATE},
        ]
        return torch.optim.Adam(groups)

    def _fill(self, tokens: NDArray[np.int64], windows: list[Window]) -> _Windows:
        longest = max(window.stop - window.start for window in windows)
        targets = np.full((len(windows), longest), self._model.model.bos_id, dtype=np.int64)
        coded = np.zeros(targets.shape, dtype=np.float32)
        for i, window in enumerate(windows):
            n = window.stop - window.start
            targets[i, :n] = tokens[window.start : window.stop]
            coded[i, window.coded - window.start : n] = 1
        return _Windows(torch.from_numpy(targets).to(self._device), torch.from_numpy(coded).to(self._device))


def _can_be_rounded(found: ChunkRows) -> bool:
    """Whether all numbers are finite, and near enough to 0 for the steps that there are codes of."""
    if not np.isfinite(found.rows).all() or not np.isfinite(found.steps).all():
        return False
    steps = np.array([float(step_of(nearest_code(step))) for step in found.steps])
    return bool((np.abs(found.rows) <= MAX_RADIUS * steps[:, None]).all())
