# ruff: noqa: TID253
"""Trains one conditioner of a frozen model; imports torch, so it is loaded lazily as a whole.

Either on the very text that is to be compressed, where the objective is the bits of that text and of the quantised
conditioner together, or for all texts of a kind, measured on held-out text. Windows begin as the archiver's do, with
BOS and then anywhere in the text. What is written of the result is decided by `conditioner_files`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training.conditioned import ConditionedModel, split_rows, token_nats
from llmzip_training.conditioner_run import ConditionerRun, descend
from llmzip_training.config import expect_at_least, expect_one_of, expect_positive
from llmzip_training.frozen import FrozenModel
from llmzip_training.rate import Noise, QuantisedRows, row_groups, uniform_noise
from llmzip_training.run_file import ScheduleConfig
from llmzip_training.streams import TokenStream
from llmzip_training.windows import WindowSampler

# Deviation of coordinates at first, in learning rates: the way of a few steps.
FIRST_DEVIATION = 2.0
# Learning rate of the logarithms of steps and deviations.
SCALE_RATE = 0.05
MEASURE_BATCH = 8
FEWEST_STEPS, MOST_STEPS, SHARED_STEPS = 20, 200, 400
# How often a text is gone through.
EPOCHS = 2
# The seed of prompts, apart from that of windows and of noise.
_PROMPT_SEED = 1 << 40


@dataclass(frozen=True)
class SteeringConfig:
    """How one conditioner is trained.

    Attributes:
        schedule: length, seed and measurements; `measure_windows` 0 for all windows.
        prefix_rows: of the soft prompt.
        shifts: whether there are steering rows.
        initial: prompts begin as embeddings of tokens of the text, `text`, or as numbers of N(0, 1), `random`.
        context: tokens in a window.
        batch: windows in a step; a short text gives fewer.
        rate: learning rate at first, in standard deviations of the embeddings; it falls linearly to 0.
        rate_weight: of the conditioner's own bits.
        noise: what stands for rounding: `uniform`, or `rounded` itself with the gradient of the identity.
        patience: measurements without gain until the end; 0 to go on.
    """

    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(steps=FEWEST_STEPS))
    prefix_rows: int = 0
    shifts: bool = True
    initial: Literal["text", "random"] = "text"
    context: int = 512
    batch: int = 8
    rate: float = 0.3
    rate_weight: float = 1.0
    noise: Noise = "uniform"
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and a conditioner of nothing."""
        expect_one_of("initial", self.initial, ("text", "random"))
        expect_one_of("noise", self.noise, ("uniform", "rounded"))
        for name in ("prefix_rows", "rate_weight", "patience"):
            expect_at_least(name, getattr(self, name), 0)
        for name in ("context", "batch"):
            expect_at_least(name, getattr(self, name), 1)
        expect_positive("rate", self.rate)
        if not self.prefix_rows and not self.shifts:
            raise ConfigError("conditioner: expected prefix rows or shifts, found none")


@dataclass(frozen=True)
class Trained:
    """A conditioner as it was trained, not rounded yet.

    Attributes:
        prefix: float32 `[n, D]`.
        shifts: float32 `[L + 1, D]` or `[0, D]`.
        steps: float32 `[G]`, what each group is to be rounded to multiples of: that of the prefix, if there is one,
            then one for each shift.
        report: what it gains.
    """

    prefix: NDArray[np.float32]
    shifts: NDArray[np.float32]
    steps: NDArray[np.float32]
    report: dict[str, Any]


def default_steps(n_tokens: int, config: SteeringConfig) -> int:
    """Steps for a text of so many tokens."""
    steps = EPOCHS * n_tokens // (config.context * config.batch)
    return max(FEWEST_STEPS, min(MOST_STEPS, steps))


class SteeringTrainer(ConditionerRun):
    """Trains one conditioner.

    Args:
        model: what it is for.
        model_id: of its artefact.
        config: how.
        text: what is trained on.
        out: folder of the run.
        held_out: what is measured; `None` for the text itself, and then with the conditioner's own bits.

    Raises:
        ConfigError: the text is shorter than two tokens, or windows and prompt are longer than the model's context.
    """

    def __init__(
        self,
        model: FrozenModel,
        model_id: str,
        config: SteeringConfig,
        text: TokenStream,
        out: Path,
        held_out: TokenStream | None = None,
    ) -> None:
        measured = held_out or text
        identity = {"kind": "steering", "model": model_id, "config": asdict(config)}
        identity |= {"text": text.digest, "measured": measured.digest}
        super().__init__(out, config.schedule, identity, config.patience)
        self.config = config
        self.model = ConditionedModel(model)
        self.device = model.embed_tokens.weight.device
        self._n_tokens, self._measured, self._on_text = text.n_tokens, measured, held_out is None
        self._bytes_per_token = text.n_bytes / max(1, text.n_tokens)
        self._sampler = _sampler(text, config)
        windows = measured.windows(config.context, config.schedule.measure_windows)
        self._windows = torch.from_numpy(windows).to(self.device)
        deviation = model.embed_tokens.weight.std().item()
        self.rows = self._first_rows(text, FIRST_DEVIATION * config.rate * deviation)
        self._optimiser = _optimiser(self.rows, config.rate * deviation)
        self._bits_without: float | None = None

    def take_step(self) -> dict[str, float]:
        """Learn from the windows of this step, each token of which stands for its share of the text."""
        targets = self._sampler.targets(self.step).to(self.device)
        rows = self._noisy_rows()
        prefix, shifts = split_rows(rows, self.config.prefix_rows)
        nats = token_nats(self.model, targets, prefix, shifts).sum() / (targets != self._measured.bos_id).sum().clamp(1)
        rate_bits = self.rows.bits(rows)
        loss = nats + self.config.rate_weight * math.log(2) / self._n_tokens * rate_bits
        descend(self._optimiser, loss, self.progress)
        bits = nats.item() / math.log(2) / self._bytes_per_token
        facts = {"loss": nats.item(), "bits_per_byte": bits, "rate_bits": rate_bits.item()}
        return facts | {"tokens": targets.numel()}

    @torch.no_grad()
    def measure(self) -> tuple[float, dict[str, Any]]:
        """Bits per byte with the rounded conditioner, whose own bits count where the text itself is measured."""
        rounded = self.rows.rounded()
        total = self._bits(rounded)
        rate = self.rows.bits(rounded).item() if self._on_text else 0.0
        value = (total + self.config.rate_weight * rate) / self._measured.n_bytes
        return value, {"held_out": {"all": value}, "context": self.config.context}

    @torch.no_grad()
    def result(self) -> Trained:
        """The best conditioner that was measured, with what it gains.

        Raises:
            ConfigError: nothing has been measured yet.
        """
        if self.best is None:
            raise ConfigError("conditioner: expected a run that was measured, found none")
        current = {name: tensor.clone() for name, tensor in self.values().items()}
        self.rows.load_state_dict(self.best[1])
        prefix, shifts = split_rows(self.rows.rows.detach(), self.config.prefix_rows)
        steps = self.rows.steps.detach()
        arrays = [tensor.cpu().numpy().copy() for tensor in (prefix, shifts, steps)]
        trained = Trained(arrays[0], arrays[1], arrays[2], self._facts())
        self.rows.load_state_dict(current)
        return trained

    def values(self) -> dict[str, Tensor]:
        """Rows, steps and deviations."""
        return dict(self.rows.state_dict())

    def state(self) -> dict[str, Any]:
        """The optimiser's."""
        return {"optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back `values` and `state`."""
        self.rows.load_state_dict(state["values"])
        self._optimiser.load_state_dict(state["state"]["optimiser"])

    def _noisy_rows(self) -> Tensor:
        if self.config.noise == "rounded":
            return self.rows.rounded()
        noise = uniform_noise(self.rows.rows.shape, self.config.schedule.seed, self.step)
        return self.rows.noised(noise.to(self.device))

    def _bits(self, rows: Tensor | None) -> float:
        """Bits of the measured text, by its measured windows."""
        prefix, shifts = (None, None) if rows is None else split_rows(rows, self.config.prefix_rows)
        batches = torch.split(self._windows, MEASURE_BATCH)
        nats = sum(token_nats(self.model, batch, prefix, shifts).double().sum().item() for batch in batches)
        n_tokens = int((self._windows != self._measured.bos_id).sum())
        return nats / math.log(2) * self._measured.n_tokens / max(1, n_tokens)

    def _facts(self) -> dict[str, Any]:
        if self._bits_without is None:
            self._bits_without = self._bits(None)
        rounded = self.rows.rounded()
        with_it, rate = self._bits(rounded), self.rows.bits(rounded).item()
        gain = self._bits_without - with_it
        facts = {"bits_without": self._bits_without, "bits_with": with_it, "conditioner_bits": rate}
        facts |= {"gain": gain / self._bits_without, "net_gain": (gain - rate) / self._bits_without}
        measured = "text" if self._on_text else "held_out"
        return {"step": self.step, "measured": measured, "bytes": self._measured.n_bytes, **facts, "pays": gain > rate}

    def _first_rows(self, text: TokenStream, deviation: float) -> QuantisedRows:
        """Shifts that do nothing, behind a prompt of embeddings of the text or of random numbers."""
        config, shape = self.config, self.model.model.config
        n_shifts = shape.n_layers + 1 if config.shifts else 0
        generator = torch.Generator().manual_seed(config.schedule.seed + _PROMPT_SEED)
        if config.initial == "random":
            prefix = torch.randn(config.prefix_rows, shape.width, generator=generator)
        else:
            tokens = torch.from_numpy(text.tokens[text.tokens != text.bos_id].astype(np.int64))
            chosen = tokens[torch.randint(len(tokens), (config.prefix_rows,), generator=generator)]
            prefix = self.model.model.embed_tokens.weight[chosen.to(self.device)]
        rows = torch.cat((prefix.to(self.device), torch.zeros(n_shifts, shape.width, device=self.device)))
        return QuantisedRows(rows, row_groups(config.prefix_rows, n_shifts).to(self.device), deviation)


def fitted(config: SteeringConfig, text: TokenStream, model: FrozenModel) -> SteeringConfig:
    """A configuration with windows that the model's context and the text allow."""
    room = model.config.context - config.prefix_rows
    if room < 1:
        raise ConfigError(f"prefix: expected fewer rows than the model's {model.config.context} positions")
    context = max(1, min(config.context, room, len(text.tokens) // 2))
    return replace(config, context=context, batch=max(1, min(config.batch, len(text.tokens) // context - 1)))


def _sampler(text: TokenStream, config: SteeringConfig) -> WindowSampler:
    return WindowSampler(text.tokens, config.context, config.batch, config.schedule.seed)


def _optimiser(rows: QuantisedRows, rate: float) -> torch.optim.Adam:
    groups = [
        {"params": [rows.rows], "lr": rate, "peak": rate},
        {"params": [rows.log_steps, rows.log_deviations], "lr": SCALE_RATE, "peak": SCALE_RATE},
    ]
    return torch.optim.Adam(groups)
