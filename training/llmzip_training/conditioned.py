# ruff: noqa: TID253
"""A frozen model under a conditioner: a soft prompt, steering rows, or both; imports torch, loaded lazily as a whole.

The prompt `prefix` stands at positions 1 to n, between BOS and the text, whose rotary positions move by n. To the
runs of n-gram tables these positions are BOS. The steering rows `shifts` are added to the residual stream of every
position: row l before layer l, the last one before the final norm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.errors import ConfigError
from llmzip_training.frozen import FrozenModel

# Rows whose logits are at hand together.
_HEAD_ROWS = 256


class ConditionedModel(nn.Module):
    """A model that takes a conditioner with its tokens; gradients flow into the conditioner alone."""

    def __init__(self, model: FrozenModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, prefix: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """Logits that predict the text: first its first token, from the last position before it.

        Args:
            ids: `[B, T]`, int64, BOS first.
            prefix: float32 `[n, D]`, or `[B, n, D]` for one a window.
            shifts: float32 `[L + 1, D]` or `[B, L + 1, D]`; none where there are no rows.

        Returns:
            `[B, T, V]`.

        Raises:
            ConfigError: the conditioner has another shape, or prompt and text are longer than the model's context.
        """
        return functional.linear(self.hidden(ids, prefix, shifts), self.model.head)

    def hidden(self, ids: Tensor, prefix: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """What `forward` multiplies with the head: `[B, T, D]`, after the final norm."""
        n_rows = 0 if prefix is None else prefix.shape[-2]
        shifts = None if shifts is None or not shifts.shape[-2] else shifts
        self._expect_fitting(ids, prefix, shifts)
        x = self._embed(ids, prefix if n_rows else None)
        T = x.shape[1]
        for i, layer in enumerate(self.model.layers):
            x = layer(_shifted(x, shifts, i), self.model.cos[:T], self.model.sin[:T], None)
        normed: Tensor = self.model.norm(_shifted(x, shifts, len(self.model.layers))[:, n_rows:])
        return normed

    def _embed(self, ids: Tensor, prefix: Tensor | None) -> Tensor:
        """The residual stream `[B, n + T, D]` at the entry of the first layer, without its shift."""
        if prefix is None:
            return self.model.embed(ids)
        rows = prefix.expand(len(ids), -1, -1)
        tokens = self.model.embed_tokens(ids)
        bos = torch.full(rows.shape[:2], self.model.bos_id, dtype=ids.dtype, device=ids.device)
        joined = torch.cat((tokens[:, :1], rows, tokens[:, 1:]), dim=1)
        x: Tensor = self.model.embed_ngrams(torch.cat((ids[:, :1], bos, ids[:, 1:]), dim=1), joined)
        return x

    def _expect_fitting(self, ids: Tensor, prefix: Tensor | None, shifts: Tensor | None) -> None:
        config = self.model.config
        for name, rows in (("prefix", prefix), ("shifts", shifts)):
            if rows is not None and (rows.shape[-1] != config.width or rows.ndim not in (2, 3)):
                raise ConfigError(f"{name}: expected rows of {config.width}, found {tuple(rows.shape)}")
        if shifts is not None and shifts.shape[-2] != config.n_layers + 1:
            raise ConfigError(f"shifts: expected {config.n_layers + 1} rows, found {shifts.shape[-2]}")
        length = ids.shape[1] + (0 if prefix is None else prefix.shape[-2])
        if length > config.context:
            raise ConfigError(f"window: expected at most {config.context} positions, found {length}")


def _shifted(x: Tensor, shifts: Tensor | None, i: int) -> Tensor:
    return x if shifts is None else x + shifts[..., i, :].reshape(-1, 1, x.shape[2])


def split_rows(rows: Tensor, n_prefix: int) -> tuple[Tensor, Tensor]:
    """Prefix and shifts of a conditioner whose rows `[..., n + S, D]` are in one tensor; views of it."""
    return rows[..., :n_prefix, :], rows[..., n_prefix:, :]


def token_nats(
    model: ConditionedModel, targets: Tensor, prefix: Tensor | None = None, shifts: Tensor | None = None
) -> Tensor:
    """What each token of some windows costs under a conditioner.

    Args:
        model: what predicts.
        targets: `[B, T]`, int64; BOS stands for a document's end and for filling.
        prefix: the soft prompt, as `ConditionedModel.forward` takes it.
        shifts: the steering rows, likewise.

    Returns:
        Nats, float32 `[B, T]`; 0 where the target is BOS.
    """
    bos_id = model.model.bos_id
    ids = torch.cat((torch.full_like(targets[:, :1], bos_id), targets[:, :-1]), dim=1)
    hidden = model.hidden(ids, prefix, shifts).flatten(0, 1)
    nats: Tensor = _HeadNats.apply(hidden, model.model.head, targets.flatten())  # type: ignore[no-untyped-call]
    return nats.view(targets.shape) * (targets != bos_id)


class _HeadNats(torch.autograd.Function):
    """Cross-entropy of `linear(hidden, head)` by rows, without the logits of all rows in memory at once.

    The head is frozen, so the gradient by a row is p @ head - head[target], and is made while its logits are at hand.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[0]
        nats, slopes = torch.empty(len(hidden), device=hidden.device), torch.empty_like(hidden) if needed else hidden
        for i in range(0, len(hidden), _HEAD_ROWS):
            part = slice(i, i + _HEAD_ROWS)
            log_p = functional.linear(hidden[part], head).log_softmax(dim=-1)
            nats[part] = -log_p.gather(1, targets[part, None])[:, 0]
            if needed:
                torch.addmm(head[targets[part]], log_p.exp_(), head, beta=-1, out=slopes[part])
        if needed:
            ctx.save_for_backward(slopes)
        return nats

    @staticmethod
    def backward(ctx: Any, nats_slope: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * nats_slope[:, None], None, None
