# ruff: noqa: TID253
"""Cuts a stream of tokens into windows; imports torch, so it is loaded lazily as a whole.

Every window is what the archiver codes: `<|endoftext|>` first, then consecutive tokens of the
stream, wherever in a document they begin. The inputs are the targets moved by one. Boundaries of
documents stand among the inputs but are never a target, because no archive codes them.

The stream stays where it is, mapped from its file: a step reads its own windows only.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.errors import ConfigError
from llmzip_training.corpus import END_OF_DOCUMENT


class WindowSampler:
    """Deals out all windows of a stream, once an epoch, in an order fixed by the seed.

    The windows of a step are a function of the step alone, so a resumed run sees what an
    uninterrupted one would have seen, and several processes share a step without asking each other.
    Each epoch cuts the stream at another offset.

    Args:
        tokens: the stream, shape `[N]`, integers.
        context: targets in a window.
        batch: windows in a step.
        seed: order of the windows.

    Raises:
        ConfigError: the stream is too short for one batch.
    """

    def __init__(self, tokens: NDArray[np.integer], context: int, batch: int, seed: int) -> None:
        self.n_windows = (len(tokens) - context) // context
        if self.n_windows < batch:
            found = max(self.n_windows, 0)
            raise ConfigError(f"corpus: expected at least {batch} windows of {context} tokens, found {found}")
        self._tokens = tokens
        self._context = context
        self._batch = batch
        self._seed = seed
        self._positions = np.arange(context)
        self._epoch = -1
        self._starts = self._positions

    def targets(self, step: int) -> Tensor:
        """All targets of a step, `[batch, context]`, int64, on the CPU."""
        epoch, i_batch = divmod(step, self.n_windows // self._batch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._epoch_starts(epoch)
        starts = self._starts[i_batch * self._batch : (i_batch + 1) * self._batch]
        return torch.from_numpy(self._tokens[starts[:, None] + self._positions].astype(np.int64))

    def _epoch_starts(self, epoch: int) -> NDArray[np.int64]:
        generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
        order = torch.randperm(self.n_windows, generator=generator)
        offset = torch.randint(self._context, (1,), generator=generator)
        starts: NDArray[np.int64] = (order * self._context + offset).numpy()
        return starts


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
