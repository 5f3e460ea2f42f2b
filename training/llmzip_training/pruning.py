# ruff: noqa: TID253
"""Pruned attention in float: which tokens a query still sees; imports torch, so it is loaded lazily as a whole.

A budget K of a layer lets each query see itself and at most K - 1 earlier tokens: those of the lowest rank,
of equals the earlier. The rank is F, the amount by which a token is forgotten, or the token's age. Three modes:

    recompute   each query chooses anew among all tokens before it; what one query drops another may see
    evict       what a query drops is gone for all later ones, so a cache of K entries is enough
    recency     the latest tokens, and position 0 where it is protected: the control, for plain models too

A token whose F reaches the cutoff is dropped in any layer, with a budget or without. F counts the raw scores of
the selecting head, whatever its own attention sees. `PrunedModel` computes whole windows with masks and
`PrunedDecoder` one token at a time with the cache that the budgets allow; both give the same logits but for
rounding. Source of the method: Leviathan, Kalman and Matias, arXiv:2410.02703.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.errors import ConfigError
from llmzip_training.model import Attention, LanguageModel
from llmzip_training.selection import SelectionRules, forgetting_blocks, grouped_product, selection_scores

Mode = Literal["recompute", "evict", "recency"]


@dataclass(frozen=True)
class Pruning:
    """What the layers of a model may keep.

    Attributes:
        budgets: for each layer the most tokens that a query sees, itself included, 0 for no limit; empty: no
            limit anywhere.
        mode: how they are chosen.
        cutoff: F in nats from which on a token is never seen; not for `recency`.
    """

    budgets: tuple[int, ...] = ()
    mode: Mode = "evict"
    cutoff: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what no cache can do."""
        if self.mode not in ("recompute", "evict", "recency"):
            raise ConfigError(f"pruning: expected mode recompute, evict or recency, found {self.mode!r}")
        if any(budget < 0 for budget in self.budgets):
            raise ConfigError(f"pruning: expected budgets of 0 or more tokens, found {self.budgets}")
        if not self.cutoff > 0:
            raise ConfigError(f"pruning: expected a cutoff above 0 nats, found {self.cutoff}")
        if self.mode == "recency" and self.cutoff != math.inf:
            raise ConfigError(f"pruning: expected no cutoff with recency, found {self.cutoff}")

    def for_layers(self, n_layers: int) -> tuple[int, ...]:
        """The budget of each of so many layers."""
        if self.budgets and len(self.budgets) != n_layers:
            raise ConfigError(f"pruning: expected {n_layers} budgets or none, found {len(self.budgets)}")
        return self.budgets or (0,) * n_layers


def chosen_anew(rank: Tensor, first_query: int, budget: int, cutoff: float) -> Tensor:
    """What each query of a block sees when it chooses among all tokens before it.

    Args:
        rank: `[B, Tq, Tk]`, of queries `first_query` .. and keys 0 ..; the lowest are kept.
        first_query: position of the first query.
        budget: most tokens of a query, its own included; 0 for no limit.
        cutoff: from which rank on a token is not seen.

    Returns:
        bool `[B, Tq, Tk]`; without a cutoff exactly `min(budget, t + 1)` are true for the query at t.
    """
    keys = torch.arange(rank.shape[2], device=rank.device)
    queries = torch.arange(first_query, first_query + rank.shape[1], device=rank.device)
    seen = (keys < queries[:, None]) & (rank < cutoff)
    if budget:
        order = rank.masked_fill(~seen, math.inf).sort(dim=-1, stable=True).indices
        seen = seen & (order.argsort(dim=-1) < budget - 1)
    return seen | (keys == queries[:, None])


def left_by_eviction(rank: Tensor, first_query: int, budget: int, cutoff: float, seen: Tensor) -> Tensor:
    """What each query of a block sees when each drops for good what its layer has no room for.

    Args:
        rank: as for `chosen_anew`.
        first_query: position of the first query.
        budget: most tokens of a query, its own included; 0 for no limit.
        cutoff: from which rank on a token is dropped.
        seen: bool `[B, Tk]`, by the query before the first.
    """
    sets = []
    for i, row in enumerate(rank.unbind(dim=1)):
        seen = seen & (row < cutoff)
        if budget:
            full = seen.sum(dim=-1, keepdim=True) >= budget
            seen = seen & ~(full & _is_victim(row, seen))
        seen[:, first_query + i] = True
        sets.append(seen)
    return torch.stack(sets, dim=1)


def _is_victim(rank: Tensor, seen: Tensor) -> Tensor:
    """Marks in `[B, Tk]` the seen key of the highest rank, the latest of equals."""
    ranks = rank.masked_fill(~seen, -math.inf)
    places = torch.arange(rank.shape[1], device=rank.device).expand_as(rank)
    places = places.masked_fill(~seen | (ranks < ranks.amax(dim=-1, keepdim=True)), -1)
    return seen & (places == places.amax(dim=-1, keepdim=True))


def ages(queries: Tensor, keys: Tensor, rules: SelectionRules) -> Tensor:
    """How long ago each key was, `[..., Tq, Tk]`; a protected position 0 is always new."""
    age = queries[:, None] - keys[..., None, :]
    return age.masked_fill((keys == 0)[..., None, :], 0) if rules.protect_first else age


class PrunedModel(nn.Module):
    """A language model whose queries see only what `pruning` leaves them; whole windows, by masks.

    Raises:
        ConfigError: there are budgets for another number of layers.
    """

    def __init__(self, model: LanguageModel, pruning: Pruning) -> None:
        super().__init__()
        self.model = model
        self.pruning = pruning
        self.budgets = pruning.for_layers(model.config.n_layers)

    def forward(self, ids: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """Logits `[B, T, V]` for `ids` `[B, T]`; what queries saw, bool `[B, T, T]` a layer, joins `masks`."""
        model, T = self.model, ids.shape[1]
        x = model.embed(ids)
        for layer, budget in zip(model.layers, self.budgets, strict=True):
            attention: Attention = layer.self_attn  # type: ignore[assignment]
            q, k, v = attention.project(layer.input_layernorm(x), model.cos[:T], model.sin[:T])  # type: ignore[operator]
            y, seen = self._attend(attention, budget, q, k, v)
            if masks is not None:
                masks.append(seen)
            x = x + attention.join(y)
            x = x + layer.mlp(layer.post_attention_layernorm(x))  # type: ignore[operator]
        return model.predict(x)

    def _attend(self, attention: Attention, budget: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mixed, masks = [], []
        for scores, forgetting, seen in self._blocks(attention, budget, q, k):
            weights = (scores - forgetting[:, None]).masked_fill(~seen[:, None], -math.inf).softmax(dim=-1)
            mixed.append(grouped_product(weights, v[:, :, : seen.shape[2]]))
            masks.append(functional.pad(seen, (0, q.shape[2] - seen.shape[2])))
        return torch.cat(mixed, dim=2), torch.cat(masks, dim=1)

    def _blocks(
        self, attention: Attention, budget: int, q: Tensor, k: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Scores, F and what is seen, a block of queries at a time."""
        rules, cutoff = rules_of(attention), self.pruning.cutoff
        seen = torch.zeros(len(q), 1, 0, dtype=torch.bool, device=q.device)
        for scores, forgetting in forgetting_blocks(q, k, attention.config.head_width**-0.5, rules):
            n_queries, n_keys = forgetting.shape[1:]
            first = n_keys - n_queries
            if self.pruning.mode == "evict":
                before = functional.pad(seen[:, -1], (0, n_keys - seen.shape[2]))
                seen = left_by_eviction(forgetting, first, budget, cutoff, before)
            elif self.pruning.mode == "recency":
                keys = torch.arange(n_keys, device=q.device)
                age = ages(keys[first:], keys, rules).to(q.dtype).expand_as(forgetting)
                seen = chosen_anew(age, first, budget, math.inf)
            else:
                seen = chosen_anew(forgetting, first, budget, cutoff)
            yield scores, forgetting, seen


def rules_of(attention: Attention) -> SelectionRules:
    """The rules of a layer; those of a plain one compute F = 0."""
    return attention.rules._replace(enabled=attention.rules.enabled and attention.config.attention == "selective")


class PrunedDecoder:
    """Reads windows one token at a time, with a cache of no more entries than the budgets.

    Args:
        model: of any kind.
        pruning: `evict` or `recency`, the modes in which what is dropped stays dropped.
        n_windows: how many are read beside each other.

    Raises:
        ConfigError: the mode needs all earlier tokens, or there are budgets for another number of layers.
    """

    def __init__(self, model: LanguageModel, pruning: Pruning, n_windows: int = 1) -> None:
        if pruning.mode == "recompute":
            raise ConfigError("pruned decoder: expected mode evict or recency, found recompute, which drops nothing")
        self.model = model
        self.position = 0
        self._run = torch.zeros(n_windows, 0, dtype=torch.int64)
        self.caches = [
            LayerCache(layer.self_attn, pruning, budget or model.config.context, n_windows)  # type: ignore[arg-type]
            for layer, budget in zip(model.layers, pruning.for_layers(model.config.n_layers), strict=True)
        ]

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        """Read the next token of each window, `[B]`, and give the logits of the one after it, `[B, V]`."""
        model, here = self.model, self.position
        if here == model.config.context:
            raise ValueError(f"pruned decoder: expected at most {here} tokens in a window, found one more")
        self._run = torch.cat((self._run.to(ids.device), ids[:, None]), dim=1)[:, -1 - model.config.ngram_tables :]
        x = model.embed(self._run)[:, -1:]
        angles = model.cos[here : here + 1], model.sin[here : here + 1]
        for layer, cache in zip(model.layers, self.caches, strict=True):
            q, k, v = cache.attention.project(layer.input_layernorm(x), *angles)  # type: ignore[operator]
            x = x + cache.attention.join(cache.attend(q, k, v, here))
            x = x + layer.mlp(layer.post_attention_layernorm(x))  # type: ignore[operator]
        self.position += 1
        return model.predict(x)[:, 0]


class LayerCache:
    """The keys and values of one layer, in slots without order; F is infinite in free ones.

    Attributes:
        positions: of the slots in the window, int64 `[B, S]`, -1 for free ones.
    """

    def __init__(self, attention: Attention, pruning: Pruning, n_slots: int, n_windows: int) -> None:
        config, like = attention.config, attention.k_proj.weight
        n_slots = min(n_slots, config.context)
        self.attention = attention
        self.rules = rules_of(attention)
        self.pruning = pruning
        self.keys = like.new_zeros(n_windows, config.n_kv_heads, n_slots, config.head_width)
        self.values = torch.zeros_like(self.keys)
        self.forgetting = like.new_full((n_windows, n_slots), math.inf)
        self.positions = torch.full((n_windows, n_slots), -1, device=like.device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, position: int) -> Tensor:
        """Store a token's key and value, `[B, Hk, 1, K]`, and mix values for its queries, `[B, H, 1, K]`."""
        query = torch.tensor([position], device=q.device)
        self._store(k, v, query)
        scores = grouped_product(q, self.keys.mT) * self.attention.config.head_width**-0.5
        weights = (scores - self.forgetting[:, None, None]).softmax(dim=-1)
        if self.rules.enabled:
            selection = selection_scores(scores[:, 0], query, self.positions, self.rules)
            self.forgetting = self.forgetting + selection[:, 0]
        return grouped_product(weights, self.values)

    def _store(self, k: Tensor, v: Tensor, query: Tensor) -> None:
        gone = self.forgetting >= self.pruning.cutoff
        self.positions = self.positions.masked_fill(gone, -1)
        self.forgetting = self.forgetting.masked_fill(gone, math.inf)
        windows, slots = torch.arange(len(k), device=k.device), self._slots(query)
        self.keys[windows, :, slots] = k[:, :, 0]
        self.values[windows, :, slots] = v[:, :, 0]
        self.positions[windows, slots] = query
        self.forgetting[windows, slots] = 0

    def _slots(self, query: Tensor) -> Tensor:
        """For each window a free slot, or that of the key of the highest rank, the latest of equals."""
        rank = self.forgetting
        if self.pruning.mode == "recency":
            age = ages(query, self.positions, self.rules)[:, 0].to(rank.dtype)
            rank = age.masked_fill(self.positions < 0, math.inf)
        worst = rank == rank.amax(dim=-1, keepdim=True)
        return self.positions.masked_fill(~worst, -2).argmax(dim=-1)
