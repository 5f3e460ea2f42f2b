# ruff: noqa: TID253
"""Trains memories: directions of steering that chunks combine each for itself; imports torch, loaded lazily as a whole.

An analysis, linear in the mean embedding of a chunk, gives each direction a weight; rounded, the weights are coded
with the chunk, and the steering rows of the chunk are the weighted sum of the directions. Analysis, directions and the
distribution of the weights learn together from the total: bits of the text and bits of the weights, with noise in
place of rounding. Source of the noise: Ballé et al., arXiv:1802.01436.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmzip.errors import ConfigError
from llmzip_training.chooser import fit_chooser
from llmzip_training.clusters import mean_embeddings
from llmzip_training.conditioned import ConditionedModel, token_nats
from llmzip_training.conditioner_run import ConditionerRun, descend
from llmzip_training.config import expect_at_least, expect_positive
from llmzip_training.frozen import FrozenModel
from llmzip_training.rate import gaussian_bits, uniform_noise
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.streams import TokenStream

MEASURE_BATCH = 16
# Greatest magnitude of a weight.
RADIUS = 15
# Learning rate of the analysis, whose inputs have the variance 1.
ANALYSIS_RATE = 0.003


@dataclass(frozen=True)
class MemoryConfig:
    """How memories are trained.

    Attributes:
        schedule: length, seed and measurements; `measure_windows` is the number of held-out chunks, 0 for all.
        directions: how many.
        chunk: tokens of a chunk, at most.
        context: tokens in a window.
        batch: windows in a step.
        rate: learning rate of the directions at first, in standard deviations of the embeddings.
        patience: measurements without gain until the end; 0 to go on.
    """

    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(steps=1000))
    directions: int = 16
    chunk: int = 4096
    context: int = 512
    batch: int = 12
    rate: float = 0.004
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in ("directions", "context", "batch"):
            expect_at_least(name, getattr(self, name), 1)
        expect_at_least("patience", self.patience, 0)
        expect_at_least("chunk", self.chunk, self.context)
        expect_positive("rate", self.rate)
        if self.directions > 64:
            raise ConfigError(f"directions: expected at most 64, found {self.directions}")


@dataclass(frozen=True)
class TrainedMemory:
    """Directions as they were trained, not rounded yet.

    Attributes:
        directions: float32 `[d, L + 1, D]`.
        deviations: of the weights, float32 `[d]`.
        analysis: float32 `[D + 1, d]`, of the mean embedding and last the constant.
        gains: float32 `[D + 1, 1]`: bits a token that a chunk saves by its memory.
        radius: greatest magnitude of a weight.
        report: what it gains on held-out text.
    """

    directions: NDArray[np.float32]
    deviations: NDArray[np.float32]
    analysis: NDArray[np.float32]
    gains: NDArray[np.float32]
    radius: int
    report: dict[str, Any]


class Memory(nn.Module):
    """What is trained.

    Args:
        features: of many chunks, `[N, D]`.
        n_directions: d.
        n_shifts: L + 1.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, n_directions: int, n_shifts: int) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(dim=0))
        self.register_buffer("scale", features.std(dim=0, correction=0).clamp(min=1e-6))
        standard = (features - self.centre) / self.scale
        _, singular, axes = torch.linalg.svd(standard, full_matrices=False)
        if len(axes) < n_directions:
            raise ConfigError(f"memory: expected at least {n_directions} chunks, found {len(axes)}")
        deviations = singular[:n_directions] / math.sqrt(len(features))
        self.analysis = nn.Parameter(axes[:n_directions].T / deviations.clamp(min=1e-6))
        self.constant = nn.Parameter(torch.zeros(n_directions))
        self.directions = nn.Parameter(torch.zeros(n_directions, n_shifts, features.shape[1]))
        self.log_deviations = nn.Parameter(torch.zeros(n_directions))

    def weights(self, features: Tensor) -> Tensor:
        """Weights `[N, d]` of chunks, before they are rounded."""
        found: Tensor = ((features - self.centre) / self.scale) @ self.analysis + self.constant
        return found.clamp(-RADIUS, RADIUS)

    def shifts(self, weights: Tensor) -> Tensor:
        """Steering rows `[N, L + 1, D]`."""
        return torch.einsum("nd,dlw->nlw", weights, self.directions)

    def bits(self, weights: Tensor) -> Tensor:
        """Of the weights of each chunk, `[N]`."""
        one = torch.ones((), dtype=torch.float64, device=weights.device)
        return gaussian_bits(weights.double(), one, self.log_deviations.double().exp()).sum(dim=1)


class MemoryTrainer(ConditionerRun):
    """Trains memories.

    Args:
        model: what they are for.
        model_id: of its artefact.
        config: how.
        text: what is trained on.
        held_out: what is measured.
        out: folder of the run.
    """

    def __init__(
        self, model: FrozenModel, model_id: str, config: MemoryConfig, text: TokenStream, held_out: TokenStream,
        out: Path,
    ) -> None:  # fmt: skip
        identity = {"kind": "memory", "model": model_id, "config": asdict(config)}
        identity |= {"text": text.digest, "measured": held_out.digest}
        super().__init__(out, config.schedule, identity, config.patience)
        self.config = config
        self.model = ConditionedModel(model)
        device = model.embed_tokens.weight.device
        self.chunks = torch.from_numpy(text.pieces(config.chunk)).to(device)
        self.held_out = torch.from_numpy(held_out.pieces(config.chunk, config.schedule.measure_windows)).to(device)
        self._bytes_a_token = held_out.n_bytes / held_out.n_tokens
        self._features = self._means(self.chunks)
        self._held_out_features = self._means(self.held_out)
        self.memory = Memory(self._features, config.directions, model.config.n_layers + 1).to(device)
        rate = config.rate * model.embed_tokens.weight.std().item()
        memory = self.memory
        groups = [([memory.directions], rate), ([memory.analysis], ANALYSIS_RATE / 10)]
        groups.append(([memory.constant, memory.log_deviations], ANALYSIS_RATE))
        self._optimiser = torch.optim.Adam([{"params": p, "lr": r, "peak": r} for p, r in groups], betas=(0.9, 0.98))
        self._lengths = (self.chunks != model.bos_id).sum(dim=1)

    def take_step(self) -> dict[str, float]:
        """Learn from windows of chunks, each under the memory of its chunk."""
        which, targets = self._batch()
        features = self._features[which]
        weights = self.memory.weights(features)
        noise = uniform_noise(weights.shape, self.schedule.seed, self.step).to(weights.device)
        weights = weights + noise
        nats = token_nats(self.model, targets, None, self.memory.shifts(weights)).sum(dim=1)
        text = nats / (targets != self.model.model.bos_id).sum(dim=1)
        bits = self.memory.bits(weights)
        loss = (text + math.log(2) * bits / self._lengths[which]).mean()
        descend(self._optimiser, loss, self.progress)
        return {"loss": loss.item(), "weight_bits": bits.mean().item(), "tokens": targets.numel()}

    @torch.no_grad()
    def measure(self) -> tuple[float, dict[str, Any]]:
        """Bits per byte of held-out chunks with their memories, all bits counted, and without."""
        none, own, bits, n_tokens = self._compare(self.held_out, self._held_out_features)
        n_bytes = n_tokens.sum().item() * self._bytes_a_token
        with_memory = ((own / math.log(2)).sum() + bits.sum()).item() / n_bytes
        found = {"own": with_memory, "none": (none / math.log(2)).sum().item() / n_bytes}
        found["weight_bits"] = bits.mean().item()
        return with_memory, {"held_out": found}

    @torch.no_grad()
    def result(self) -> TrainedMemory:
        """The best memory that was measured, and what it gains."""
        if self.best is not None:
            self.memory.load_state_dict(self.best[1])
        _, report = self.measure()
        sample = torch.arange(0, len(self.chunks), max(1, len(self.chunks) // 384))
        none, own, bits, n_tokens = self._compare(self.chunks[sample], self._features[sample])
        gains = ((none - own) / math.log(2) - bits) / n_tokens
        memory = self.memory
        analysis = memory.analysis / memory.scale[:, None]
        constant = memory.constant - memory.centre @ analysis
        return TrainedMemory(
            memory.directions.cpu().numpy(),
            memory.log_deviations.exp().cpu().numpy(),
            torch.cat((analysis, constant[None])).cpu().numpy(),
            fit_chooser(self._features[sample], gains[:, None]).cpu().numpy(),
            RADIUS,
            report,
        )

    def values(self) -> dict[str, Tensor]:
        """What is trained."""
        return dict(self.memory.state_dict())

    def state(self) -> dict[str, Any]:
        """The optimiser's."""
        return {"optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `values` and `state` gave."""
        self.memory.load_state_dict(state["values"])
        self._optimiser.load_state_dict(state["state"]["optimiser"])

    def _compare(self, chunks: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nats of the first window of each chunk and of its last, without and with memory; bits; tokens. Each `[N]`.

        Both windows stand for the chunk: nats are scaled to all its tokens.
        """
        weights = self.memory.weights(features).round()
        shifts, bits = self.memory.shifts(weights), self.memory.bits(weights)
        lengths = (chunks != self.model.model.bos_id).sum(dim=1)
        windows = torch.stack([self._window(chunks, torch.zeros_like(lengths)), self._window(chunks, lengths)])
        none, own = (sum(self._nats(part, rows) for part in windows) for rows in (None, shifts))
        seen = sum((part != self.model.model.bos_id).sum(dim=1) for part in windows)
        return none * lengths / seen, own * lengths / seen, bits, lengths

    def _window(self, chunks: Tensor, ends: Tensor) -> Tensor:
        """Windows `[N, context]` that end at these places, or the first ones."""
        starts = (ends - self.config.context).clamp(min=0)
        places = starts[:, None] + torch.arange(self.config.context, device=chunks.device)
        return chunks.gather(1, places)

    def _nats(self, windows: Tensor, shifts: Tensor | None) -> Tensor:
        parts = []
        for i in range(0, len(windows), MEASURE_BATCH):
            rows = None if shifts is None else shifts[i : i + MEASURE_BATCH]
            parts.append(token_nats(self.model, windows[i : i + MEASURE_BATCH], None, rows).sum(dim=1))
        return torch.cat(parts)

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Chunks of this step, those with more tokens more often, and a window of each."""
        generator = torch.Generator().manual_seed((self.schedule.seed << 32) + self.step)
        lengths = self._lengths.cpu()
        which = torch.multinomial(lengths.float(), self.config.batch, replacement=True, generator=generator)
        n_windows = (lengths[which] - 1) // self.config.context + 1
        ends = (torch.rand(self.config.batch, generator=generator) * n_windows).long() + 1
        ends = torch.minimum(ends * self.config.context, lengths[which])
        device = self.chunks.device
        return which.to(device), self._window(self.chunks[which.to(device)], ends.to(device))

    def _means(self, chunks: Tensor) -> Tensor:
        model = self.model.model
        return mean_embeddings(chunks, model.embed_tokens.weight, model.bos_id)


def fitted(config: MemoryConfig, model: FrozenModel) -> MemoryConfig:
    """A configuration with windows that the model's context allows."""
    return replace(config, context=min(config.context, model.config.context))
