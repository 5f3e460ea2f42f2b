# ruff: noqa: TID253
"""Cuts a stream of tokens into windows; imports torch, so it is loaded lazily as a whole.

Every window is what the archiver codes: `<|endoftext|>` first, then consecutive tokens of the
stream, wherever in a document they begin. The inputs are the targets moved by one. Boundaries of
documents stand among the inputs but are never a target, because no archive codes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmzip_training.corpus import END_OF_DOCUMENT


class WindowSampler:
    """Deals out all windows of a stream, once an epoch, in an order fixed by the seed.

    The batch of a step is a function of the step alone, so a resumed run sees what an
    uninterrupted one would have seen. Each epoch cuts the stream at another offset.

    Args:
        tokens: the stream, shape `[N]`, integers, on the device that trains.
        context: targets in a window.
        batch: windows in a step.
        seed: order of the windows.

    Raises:
        ValueError: the stream is too short for one batch.
    """

    def __init__(self, tokens: Tensor, context: int, batch: int, seed: int) -> None:
        self.n_windows = (len(tokens) - context) // context
        if self.n_windows < batch:
            raise ValueError(f"token stream: expected {batch} windows of {context}, found {max(self.n_windows, 0)}")
        self._tokens = tokens
        self._context = context
        self._batch = batch
        self._seed = seed
        self._positions = torch.arange(context, device=tokens.device)
        self._epoch = -1
        self._starts = self._positions

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a step, each `[batch, context]`, int64."""
        epoch, i_batch = divmod(step, self.n_windows // self._batch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._epoch_starts(epoch)
        starts = self._starts[i_batch * self._batch : (i_batch + 1) * self._batch]
        targets = self._tokens[starts[:, None] + self._positions].long()
        return window_inputs(targets), targets

    def _epoch_starts(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
        order = torch.randperm(self.n_windows, generator=generator)
        offset = torch.randint(self._context, (1,), generator=generator)
        return (order * self._context + offset).to(self._tokens.device)


def window_inputs(targets: Tensor) -> Tensor:
    """The inputs that predict `targets` `[B, T]`: `<|endoftext|>`, then all targets but the last."""
    first = torch.full_like(targets[:, :1], END_OF_DOCUMENT)
    return torch.cat((first, targets[:, :-1]), dim=1)


def consecutive_windows(tokens: Tensor, context: int) -> Tensor:
    """All of `tokens` as targets `[B, context]`, the last row filled with `END_OF_DOCUMENT`."""
    n_windows = -(-len(tokens) // context)
    padded = torch.full((n_windows * context,), END_OF_DOCUMENT, dtype=torch.int64, device=tokens.device)
    padded[: len(tokens)] = tokens
    return padded.view(n_windows, context)
