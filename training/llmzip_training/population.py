# ruff: noqa: TID253
"""Makes many steering matrices, each trained on a piece of text of its own; imports torch, loaded lazily as a whole.

They are what a learned hyperprior is learned from. Each piece is a window of one document, and comes with the window
before it, which a distribution may be predicted from. All pieces of a batch are trained together, each with steps and
deviations of its own as `steering` has them; the objective is the bits of the piece and, times `rate_weight`, of its
matrix.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zipfile
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.errors import ConfigError, DivergedError, FileError
from llmzip_training.clusters import mean_embeddings
from llmzip_training.conditioned import ConditionedModel, token_nats
from llmzip_training.config import expect_at_least, expect_positive
from llmzip_training.files import write_whole
from llmzip_training.rate import FIRST_STEP, gaussian_bits, uniform_noise
from llmzip_training.steering import FIRST_DEVIATION
from llmzip_training.streams import TokenStream

Floats = NDArray[np.float32]

# Learning rate of the logarithms of steps and deviations: a few steps must be enough.
SCALE_RATE = 0.2
# One document in so many is held out, where all come from one text.
_HELD_OUT = 5


@dataclass(frozen=True)
class PopulationConfig:
    """How matrices are trained.

    Attributes:
        pieces: how many are taken of the training text; fewer if it has fewer.
        held_out: how many of the held-out text, where that is another.
        context: tokens in a piece.
        batch: pieces that are trained together.
        steps: of each.
        rate: learning rate at first, in standard deviations of the embeddings; it falls linearly to 0.
        rate_weight: of a matrix's own bits: 1 / n lets a piece stand for a text n times as long.
        seed: of the noise.
    """

    pieces: int = 96
    held_out: int = 24
    context: int = 512
    batch: int = 8
    steps: int = 10
    rate: float = 0.1
    rate_weight: float = 1 / 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in ("pieces", "held_out", "context", "batch", "steps"):
            expect_at_least(name, getattr(self, name), 1)
        for name in ("rate", "rate_weight"):
            expect_positive(name, getattr(self, name))


@dataclass(frozen=True)
class Pieces:
    """Windows of text and those before them, int64 `[N, T]` each, and which of them are held out, bool `[N]`."""

    windows: Tensor
    before: Tensor
    held_out: Tensor

    @property
    def digest(self) -> str:
        """SHA-256 of the tokens, in hex."""
        tokens = torch.stack((self.before, self.windows)).numpy()
        return hashlib.sha256(tokens.tobytes()).hexdigest()


@dataclass(frozen=True)
class Population:
    """Matrices that were trained.

    Attributes:
        shifts: float32 `[N, L + 1, D]`.
        steps: what each row wants to be rounded to, float32 `[N, L + 1]`.
        features: mean embeddings of the windows before the pieces, float32 `[N, D]`.
        held_out: which of them are, bool `[N]`.
    """

    shifts: Floats
    steps: Floats
    features: Floats
    held_out: NDArray[np.bool_]

    @property
    def common_steps(self) -> Floats:
        """The median step of each row among those to train on, `[L + 1]`."""
        medians: Floats = np.median(self.steps[~self.held_out], axis=0).astype(np.float32)
        return medians


def cut_pieces(train: TokenStream, held_out: TokenStream | None, config: PopulationConfig) -> Pieces:
    """Pieces at equal distances; held out are those of another text, or those of every fifth document of the one.

    Raises:
        ConfigError: a text has no document of two windows, or one text has fewer than five.
    """
    pairs, documents = _pairs(train, config.context, config.pieces)
    if held_out is None:
        apart = np.unique(documents, return_inverse=True)[1] % _HELD_OUT == _HELD_OUT - 1
        if not apart.any():
            raise ConfigError(f"population: expected {_HELD_OUT} documents of {2 * config.context} tokens, found fewer")
    else:
        others, _ = _pairs(held_out, config.context, config.held_out)
        apart = np.arange(len(pairs) + len(others)) >= len(pairs)
        pairs = np.concatenate([pairs, others])
    both = torch.from_numpy(pairs)
    return Pieces(both[:, 1], both[:, 0], torch.from_numpy(apart))


def train_population(
    model: ConditionedModel,
    pieces: Pieces,
    config: PopulationConfig,
    path: Path,
    model_id: str,
    pause_at: float = math.inf,
) -> Population | None:
    """Train a matrix for each piece, or go on with those that a file holds; None if the clock shows `pause_at` first.

    Args:
        model: what they condition.
        pieces: of text.
        config: how.
        path: of the file, written after every batch.
        model_id: of its artefact.
        pause_at: of `time.monotonic()`.

    Raises:
        ConfigError: the file is that of another population.
        FileError: it is damaged.
        DivergedError: a loss is not finite.
    """
    identity = json.dumps({"model": model_id, "text": pieces.digest, **asdict(config)})
    parts = _read(path, identity)
    model_, device = model.model, model.model.embed_tokens.weight.device
    n_done = sum(len(part["shifts"]) for part in parts)
    while n_done < len(pieces.windows):
        if time.monotonic() >= pause_at:
            return None
        windows = pieces.windows[n_done : n_done + config.batch].to(device)
        before = pieces.before[n_done : n_done + config.batch].to(device)
        found = train_matrices(model, windows, config, n_done)
        features = mean_embeddings(before, model_.embed_tokens.weight, model_.bos_id)
        parts.append({name: t.cpu().numpy() for name, t in (*found.items(), ("features", features))})
        n_done += len(windows)
        _write(path, identity, parts)
        print(f"population: {n_done} of {len(pieces.windows)} matrices", flush=True)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("shifts", "steps", "features")}
    return Population(**joined, held_out=pieces.held_out.numpy())


def train_matrices(
    model: ConditionedModel, windows: Tensor, config: PopulationConfig, first: int = 0
) -> dict[str, Tensor]:
    """`shifts` `[B, L + 1, D]` and `steps` `[B, L + 1]` of windows `[B, T]`; `first` tells their noise from others'."""
    n_rows, deviation = model.model.config.n_layers + 1, model.model.embed_tokens.weight.std().item()
    shape = (len(windows), n_rows, model.model.config.width)
    shifts = torch.zeros(shape, device=windows.device, requires_grad=True)
    begin = math.log(FIRST_DEVIATION * config.rate * deviation)
    log_deviations = torch.full(shape[:2], begin, device=windows.device, requires_grad=True)
    log_steps = torch.full(shape[:2], begin + math.log(FIRST_STEP), device=windows.device, requires_grad=True)
    rate = config.rate * deviation
    optimiser = torch.optim.Adam(
        [
            {"params": [shifts], "lr": rate, "peak": rate},
            {"params": [log_steps, log_deviations], "lr": SCALE_RATE, "peak": SCALE_RATE},
        ]
    )
    for step in range(config.steps):
        noise = uniform_noise(shifts.shape, config.seed, first * config.steps + step).to(windows.device)
        steps = log_steps.exp()[..., None]
        moved = shifts + noise * steps
        bits = gaussian_bits(moved.double(), steps.double(), log_deviations.double().exp()[..., None]).sum()
        nats = token_nats(model, windows, None, moved).sum()
        loss = nats + config.rate_weight * math.log(2) * bits
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _set_rates(optimiser, step / config.steps)
        optimiser.step()
        if not math.isfinite(loss.item()):
            raise DivergedError(f"step {step}: expected a finite loss, found {loss.item()}; try a lower rate")
    return {"shifts": shifts.detach(), "steps": log_steps.detach().exp()}


@torch.no_grad()
def text_bits(model: ConditionedModel, windows: Tensor, shifts: Tensor | None, batch: int) -> Tensor:
    """Bits of each window `[N, T]` under its matrix, float64 `[N]`."""
    parts = []
    for i in range(0, len(windows), batch):
        rows = None if shifts is None else shifts[i : i + batch]
        nats = token_nats(model, windows[i : i + batch], None, rows)
        parts.append(nats.double().sum(dim=1) / math.log(2))
    return torch.cat(parts)


def _pairs(text: TokenStream, context: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbouring windows of one document each, int64 `[n, 2, T]`, and the number of the document, `[n]`."""
    documents = np.split(text.tokens, np.flatnonzero(text.tokens == text.bos_id) + 1)
    texts = [document[document != text.bos_id] for document in documents]
    starts = [(i, first) for i, one in enumerate(texts) for first in range(0, len(one) - 2 * context + 1, context)]
    if not starts:
        raise ConfigError(f"population: expected documents of {2 * context} tokens, found none")
    chosen = starts if n >= len(starts) else [starts[i * len(starts) // n] for i in range(n)]
    pairs = [texts[i][first : first + 2 * context].reshape(2, context) for i, first in chosen]
    return np.stack(pairs).astype(np.int64), np.array([i for i, _ in chosen])


def _set_rates(optimiser: torch.optim.Optimizer, progress: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * (1.0 - progress)


def _write(path: Path, identity: str, parts: list[dict[str, Any]]) -> None:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    file = BytesIO()
    np.savez(file, allow_pickle=False, identity=np.array(identity), **joined)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, file.getvalue())


def _read(path: Path, identity: str) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in ("identity", "shifts", "steps", "features")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"population: expected arrays, found none: {error}", path=str(path)) from error
    if str(arrays.pop("identity")) != identity:
        raise ConfigError(f"{path}: expected the population of this model, text and configuration, found another")
    return [arrays]
