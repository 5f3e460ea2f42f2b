# ruff: noqa: TID253
"""Lets several processes train one model; imports torch, so it is loaded lazily as a whole.

`torchrun` starts the processes and tells them of each other. Every process holds the whole model, computes the
gradient of its share of a step's windows, and the shares are summed; after that all do the same arithmetic on the
same numbers. Values on the CPU go by gloo, gradients on a GPU by NCCL. What only one may do, such as writing, is
done by rank 0. A process that ends takes the others with it: they get an error at once, or after a timeout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from llmzip.errors import BackendError, LlmzipError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
# For what rank 0 does alone before the first step: tokenising a corpus.
LONG_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """Who takes part: this process is number `rank` of `world`."""

    rank: int = 0
    world: int = 1
    long_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, for each of them."""
        if self.world > 1:
            values = values.clone()
            with _others_needed():
                dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in one message; each parameter must have one."""
        if self.world == 1:
            return
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]
        sums = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(sums, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def agree(self, value: float) -> float:
        """The `value` of rank 0, for all."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        with _others_needed():
            dist.broadcast(shared, src=0)
        return shared.item()

    def first(self, work: Callable[[], T]) -> T:
        """Let rank 0 do some long work and give all its result; what it raises on purpose, all raise."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None]
        if self.is_main:
            try:
                outcome = [work()]
            except (LlmzipError, OSError) as error:
                outcome = [error]
        with _others_needed():
            dist.broadcast_object_list(outcome, src=0, group=self.long_group, device=torch.device("cpu"))
        if isinstance(outcome[0], LlmzipError | OSError):
            raise outcome[0]
        result: T = outcome[0]
        return result


ALONE = Processes()


def local_device(device: str) -> str:
    """The device of this process: with several GPUs, each process of a machine has its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


@contextmanager
def joined(device: str, timeout: timedelta = TIMEOUT) -> Iterator[Processes]:
    """Join the other processes of the run, if torchrun started this one among several, and leave them in the end.

    Args:
        device: where the model will be.
        timeout: how long an answer of the others is waited for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    with _others_needed():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=timeout)
        long_group = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), long_group)
    finally:
        dist.destroy_process_group()


@contextmanager
def _others_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise BackendError(f"expected an answer of the run's other processes, found none: {reason}") from error
