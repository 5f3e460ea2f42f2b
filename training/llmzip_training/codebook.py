# ruff: noqa: TID253
"""Trains a codebook of conditioners and what chooses among them; imports torch, so it is loaded lazily as a whole.

Rounds alternate: a pool of pieces is drawn, each goes to the entry under which it costs least, none being one of them,
and the entries learn from their pieces, several entries in one batch. In the first rounds, while all entries are
alike, pieces go by clusters of what they are about. An entry that nothing goes to begins anew with the pieces that are
served worst.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmzip.errors import ConfigError
from llmzip_training.chooser import choose, fit_chooser
from llmzip_training.clusters import k_means, mean_embeddings
from llmzip_training.codebook_config import CodebookConfig
from llmzip_training.conditioned import ConditionedModel, split_rows, token_nats
from llmzip_training.conditioner_run import ConditionerRun, descend
from llmzip_training.frozen import FrozenModel
from llmzip_training.rate import FIRST_STEP, row_groups
from llmzip_training.streams import TokenStream

MEASURE_BATCH = 16
# Rounds in which pieces go by their clusters.
WARM_ROUNDS = 2
# Rounds without a piece after which an entry begins anew.
IDLE_ROUNDS = 2


@dataclass(frozen=True)
class TrainedCodebook:
    """A codebook as it was trained, not rounded yet.

    Attributes:
        entries: prefix `[n, D]` and shifts `[L + 1, D]` of each, float32; no row where there is none.
        steps: what each group of an entry is to be rounded to multiples of, float32 `[K, G]`.
        chooser: float32 `[D + 1, K]`, see `chooser.choose`.
        report: what entries, the best choice and the chooser's gain on held-out text.
    """

    entries: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    steps: NDArray[np.float32]
    chooser: NDArray[np.float32]
    report: dict[str, Any]


class CodebookTrainer(ConditionerRun):
    """Trains a codebook.

    Args:
        model: what it is for.
        model_id: of its artefact.
        config: how.
        text: what is trained on.
        held_out: what is measured.
        out: folder of the run.

    Raises:
        ConfigError: a text has no piece.
    """

    def __init__(
        self, model: FrozenModel, model_id: str, config: CodebookConfig, text: TokenStream, held_out: TokenStream,
        out: Path,
    ) -> None:  # fmt: skip
        identity = {"kind": "codebook", "model": model_id, "config": asdict(config)}
        identity |= {"text": text.digest, "measured": held_out.digest}
        super().__init__(out, config.schedule, identity, config.patience)
        self.config = config
        self.model = ConditionedModel(model)
        self.device = model.embed_tokens.weight.device
        self.pieces = self._cut(text, "training text")
        self.held_out = self._cut(held_out, "held-out text", config.schedule.measure_windows)
        self._held_out_stream = held_out
        self._features = self._mean_embeddings(self.pieces)
        self._clusters = k_means(self._features, config.entries, config.schedule.seed)
        n_shifts = model.config.n_layers + 1 if config.shifts else 0
        self._groups = row_groups(config.prefix_rows, n_shifts)
        deviation = model.embed_tokens.weight.std().item()
        self.entries = nn.Parameter(self._first_entries(n_shifts, deviation).to(self.device))
        rate = config.rate * deviation
        self._optimiser = torch.optim.Adam([{"params": [self.entries], "lr": rate, "peak": rate}])
        self._pool, self._labels = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        self._idle = torch.zeros(config.entries, dtype=torch.int64)

    def take_step(self) -> dict[str, float]:
        """Let the entries learn from their pieces in this step."""
        i_round, i_step = divmod(self.step, self.config.round_steps)
        if not i_step:
            self._begin_round(i_round)
        chosen = self._batch(i_round, i_step)
        targets = self.pieces[self._pool[chosen]]
        rows = self.entries[self._labels[chosen] - 1]
        nats = token_nats(self.model, targets, *split_rows(rows, self.config.prefix_rows))
        loss = (nats.sum(dim=1) / self._lengths(targets)).mean()
        descend(self._optimiser, loss, self.progress)
        return {"loss": loss.item(), "tokens": targets.numel()}

    @torch.no_grad()
    def measure(self) -> tuple[float, dict[str, Any]]:
        """Bits per byte of the held-out pieces, each under the entry that is best for it."""
        nats = self.nats(self.held_out, self.rounded(self.entries))
        found = {"all": self._bits_per_byte(nats.amin(dim=1)), "none": self._bits_per_byte(nats[:, 0])}
        return found["all"], {"held_out": found, "context": self.config.context}

    @torch.no_grad()
    def result(self) -> TrainedCodebook:
        """The best codebook that was measured, its chooser, and what they gain.

        Raises:
            ConfigError: nothing has been measured yet.
        """
        if self.best is None:
            raise ConfigError("codebook: expected a run that was measured, found none")
        entries = self.best[1]["entries"].to(self.device)
        chooser = self._fit_chooser(entries)
        report = self._report_of(self.nats(self.held_out, self.rounded(entries)), chooser)
        parts = [split_rows(one, self.config.prefix_rows) for one in entries.cpu()]
        pairs = [(prefix.numpy().copy(), shifts.numpy().copy()) for prefix, shifts in parts]
        return TrainedCodebook(pairs, self.steps_of(entries).cpu().numpy(), chooser.cpu().numpy(), report)

    @torch.no_grad()
    def nats(self, pieces: Tensor, entries: Tensor) -> Tensor:
        """What each piece costs without and with each entry, nats `[N, K + 1]`, float32."""
        columns = []
        for entry in (None, *entries):
            parts = (None, None) if entry is None else split_rows(entry, self.config.prefix_rows)
            batches = torch.split(pieces, MEASURE_BATCH)
            columns.append(torch.cat([token_nats(self.model, batch, *parts).sum(dim=1) for batch in batches]))
        return torch.stack(columns, dim=1)

    def steps_of(self, entries: Tensor) -> Tensor:
        """The steps of all groups of entries, `[K, G]`: a share of their root mean square."""
        groups = range(int(self._groups.max()) + 1)
        squares = [entries[:, self._groups == i].square().mean(dim=(1, 2)) for i in groups]
        return torch.stack(squares, dim=1).sqrt().clamp(min=1e-6) * FIRST_STEP

    def rounded(self, entries: Tensor) -> Tensor:
        """Entries as a decoder gets them."""
        steps = self.steps_of(entries)[:, self._groups, None]
        return (entries / steps).round() * steps

    def values(self) -> dict[str, Tensor]:
        """The entries."""
        return {"entries": self.entries.detach()}

    def state(self) -> dict[str, Any]:
        """The optimiser's, and the round's."""
        facts = {"pool": self._pool, "labels": self._labels, "idle": self._idle}
        return {"optimiser": self._optimiser.state_dict(), **facts}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take back `values` and `state`."""
        self.entries.copy_(state["values"]["entries"])
        self._optimiser.load_state_dict(state["state"]["optimiser"])
        self._pool, self._labels, self._idle = (state["state"][name] for name in ("pool", "labels", "idle"))

    def _begin_round(self, i_round: int) -> None:
        """Draw a pool and assign its pieces."""
        self._pool = torch.randperm(len(self.pieces), generator=self._generator(2 * i_round))[: self.config.pool]
        if i_round < WARM_ROUNDS:
            self._labels = self._clusters[self._pool].cpu() + 1
            return
        nats = self.nats(self.pieces[self._pool, : self.config.assign_tokens], self.entries.detach()).cpu()
        self._labels = nats.argmin(dim=1)
        served = torch.bincount(self._labels, minlength=self.config.entries + 1)[1:] > 0
        self._idle = torch.where(served, 0, self._idle + 1)
        gains = nats[:, 0] - nats.amin(dim=1)
        if not served.any():
            self._idle[0] = IDLE_ROUNDS
        for entry in torch.nonzero(self._idle >= IDLE_ROUNDS)[:, 0].tolist():
            self._begin_anew(entry, gains)

    @torch.no_grad()
    def _begin_anew(self, entry: int, gains: Tensor) -> None:
        """Give an entry the piece that gains least and those most like it, which no other fresh entry gets."""
        features = self._features[self._pool].cpu()
        worst = int(gains.argmin())
        n_taken = max(1, len(self._pool) // (2 * self.config.entries))
        distances = torch.cdist(features[worst][None], features)[0].masked_fill(gains.isinf(), math.inf)
        taken = distances.argsort()[:n_taken]
        self._labels[taken] = entry + 1
        gains[taken] = math.inf
        self._idle[entry] = 0
        self.entries[entry, self.config.prefix_rows :] = 0.0
        for moments in self._optimiser.state.get(self.entries, {}).values():
            if moments.shape == self.entries.shape:
                moments[entry] = 0.0

    def _batch(self, i_round: int, i_step: int) -> Tensor:
        """Places in the pool of this step's pieces, those that go to none left out."""
        order = torch.randperm(len(self._pool), generator=self._generator(2 * i_round + 1))
        order = order[self._labels[order] > 0]
        places = torch.arange(min(self.config.batch, len(order))) + i_step * self.config.batch
        return order[places % len(order)]

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.schedule.seed << 32) + number)

    def _first_entries(self, n_shifts: int, deviation: float) -> Tensor:
        """Prompts of random rows as large as embeddings; shifts that do nothing."""
        width, config = self.model.model.config.width, self.config
        generator = torch.Generator().manual_seed(config.schedule.seed)
        prefixes = deviation * torch.randn(config.entries, config.prefix_rows, width, generator=generator)
        return torch.cat((prefixes, torch.zeros(config.entries, n_shifts, width)), dim=1)

    def _cut(self, text: TokenStream, name: str, n_pieces: int = 0) -> Tensor:
        pieces = text.pieces(self.config.context, n_pieces)
        if not len(pieces):
            raise ConfigError(f"{name}: expected a piece of {-(-self.config.context // 8)} tokens, found none")
        return torch.from_numpy(pieces).to(self.device)

    def _mean_embeddings(self, pieces: Tensor) -> Tensor:
        return mean_embeddings(pieces, self.model.model.embed_tokens.weight, self._held_out_stream.bos_id)

    def _lengths(self, pieces: Tensor) -> Tensor:
        return (pieces != self._held_out_stream.bos_id).sum(dim=1)

    def _bits_per_byte(self, nats: Tensor) -> float:
        stream = self._held_out_stream
        bits_a_token = nats.double().sum().item() / math.log(2) / int(self._lengths(self.held_out).sum())
        return bits_a_token * stream.n_tokens / stream.n_bytes

    def _fit_chooser(self, entries: Tensor) -> Tensor:
        chosen = torch.randperm(len(self.pieces), generator=self._generator(0))[: self.config.chooser_pieces]
        pieces = self.pieces[chosen, : self.config.assign_tokens]
        nats = self.nats(pieces, self.rounded(entries)) / self._lengths(pieces)[:, None]
        return fit_chooser(self._features[chosen], nats[:, :1] - nats[:, 1:])

    def _report_of(self, nats: Tensor, chooser: Tensor) -> dict[str, Any]:
        best, chosen = nats.argmin(dim=1), choose(self._mean_embeddings(self.held_out), chooser)
        without, rows = nats[:, 0].sum().item(), torch.arange(len(nats), device=nats.device)
        gains = {"oracle": without - nats.amin(dim=1).sum().item()}
        gains["chooser"] = without - nats[rows, chosen].sum().item()
        own = [(nats[best == i, 0] - nats[best == i, i]).sum().item() / without for i in range(nats.shape[1])]
        alone = (1 - nats.sum(dim=0) / without).tolist()
        usage = torch.bincount(best, minlength=nats.shape[1]).tolist()
        facts: dict[str, Any] = {
            "step": self.step,
            "pieces": len(nats),
            "bits_per_byte_without": self._bits_per_byte(nats[:, 0]),
        }
        facts |= {name: gain / without for name, gain in gains.items()}
        facts["index_share"] = len(nats) * math.log(nats.shape[1]) / without
        facts["entries"] = [
            {"used": used, "gain_where_used": gain, "gain_everywhere": everywhere}
            for used, gain, everywhere in zip(usage, own, alone, strict=True)
        ]
        return facts


def fitted(config: CodebookConfig, model: FrozenModel) -> CodebookConfig:
    """A configuration with pieces that the model's context allows."""
    room = model.config.context - config.prefix_rows
    if room < 1:
        raise ConfigError(f"prefix: expected fewer rows than the model's {model.config.context} positions")
    return replace(config, context=min(config.context, room))
