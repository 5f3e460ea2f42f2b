"""What a model on a GPU remembers of its lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from llmzip.exact.backend import Cache, Floats
from llmzip.exact.cuda_guard import Guard
from llmzip.exact.spec import ModelSpec
from llmzip_kernels.heads import Heads, new_store
from llmzip_kernels.launching import device, round_up, to_device
from llmzip_kernels.mixing import BLOCK_S
from llmzip_kernels.selection import Rules, Slots


def heads_of(spec: ModelSpec) -> Heads:
    """How a row's queries, keys and values lie side by side."""
    return Heads(spec.n_heads, spec.n_kv_heads, spec.head_width)


class DeviceArray:
    """An array that stays on the device: it has a length and slices, and NumPy makes a copy of it when asked to.

    Args:
        tensor: the elements.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: slice) -> DeviceArray:
        return DeviceArray(self.tensor[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.tensor.cpu().numpy()
        return array.astype(dtype or array.dtype)


class CudaCache(Cache):
    """Keys and values of all layers; one lane more than there are, for rows that fill up a batch.

    Args:
        spec: of the model.
        n_lanes: how many there are.
        capacity: positions of each.
        guard: to be held while the device is used.

    Attributes:
        heads: of the model.
        stores: keys and values of each layer.
        slots: of each layer under selective attention what stands where; else empty.
        rules: of selective attention, where there is that.
        kept: tokens int32 `[lanes + 1, S]`, for runs of them.
        steering: shifts of steered lanes float32 `[lanes + 1, L + 1, D]`, or None as long as no lane is steered.
        steps: what repeats steps of as many rows, by how many, and whether any is steered; with their inputs.
    """

    def __init__(self, spec: ModelSpec, n_lanes: int, capacity: int, guard: Guard) -> None:
        super().__init__(n_lanes, capacity)
        self._guard = guard
        self.heads = heads_of(spec)
        n_slots = [min(budget or capacity, capacity) for budget in _budgets(spec)]
        padded = [round_up(n, BLOCK_S) for n in n_slots]
        self.stores = [new_store(n_lanes + 1, self.heads, n, device()) for n in padded]
        self.slots: list[Slots] = []
        if spec.selection:
            cutoff = spec.selection.cutoff
            self.rules = Rules(cutoff, spec.selection.protect_first, spec.selection.mask_self)
            self.slots = [_new_slots(n_lanes + 1, n, room, cutoff) for n, room in zip(n_slots, padded, strict=True)]
        self.kept = torch.zeros((n_lanes + 1, capacity), dtype=torch.int32, device=device())
        self.steering: torch.Tensor | None = None
        self.steps: dict[tuple[int, bool], Any] = {}

    def steer(self, lane: int, shifts: Floats | None) -> None:
        """As the base says; a copy lies on the device."""
        super().steer(lane, shifts)
        if shifts is not None:
            # A cache is one thread's, but this allocates, and another thread may be capturing.
            with self._guard:
                if self.steering is None:
                    shape = (self.n_lanes + 1, *shifts.shape)
                    self.steering = torch.zeros(shape, dtype=torch.float32, device=device())
                self.steering[lane] = to_device(np.asarray(shifts, dtype=np.float32))


def _budgets(spec: ModelSpec) -> list[int]:
    return [spec.selection.budget(layer) if spec.selection else 0 for layer in range(spec.n_layers)]


def _new_slots(n_lanes: int, n_slots: int, padded: int, cutoff: int) -> Slots:
    forgotten = torch.full((n_lanes, padded), cutoff, dtype=torch.int32, device=device())
    used = torch.zeros(n_lanes, dtype=torch.int32, device=device())
    return Slots(forgotten, torch.zeros_like(forgotten), used, n_slots)
