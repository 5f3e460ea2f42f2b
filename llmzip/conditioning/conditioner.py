"""A conditioner as the engine takes it: what stands before the text of every window, and what shifts it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

_NO_IDS = np.zeros(0, dtype=np.int32)


class Conditioner(NamedTuple):
    """One conditioner. ARITHMETIC.md, section 6.4.

    Attributes:
        text: tokens of a fixed string that stand behind BOS, int32 `[n]`.
        prefix: rows that stand behind BOS, float32 `[n, D]`; there is no text then.
        shifts: what is added before each layer and before the last norm, float32 `[L + 1, D]`, or None.
    """

    text: Ids = _NO_IDS
    prefix: Floats | None = None
    shifts: Floats | None = None

    @property
    def n_positions(self) -> int:
        """Positions of a window that it takes."""
        return len(self.text) if self.prefix is None else len(self.prefix)


NONE = Conditioner()


class Steering(NamedTuple):
    """A conditioner whose rows have got their ids.

    Attributes:
        ids: what stands behind BOS, int32 `[n]`: tokens, or rows of a table of prefixes, counted from V on.
        shifts: see `Conditioner`.
    """

    ids: Ids
    shifts: Floats | None


class Steerings:
    """Conditioners with one table for the rows of all their prefixes.

    Args:
        conditioners: any number.
        vocab_size: V.
        width: D.

    Attributes:
        table: float32 `[P, D]`.
        all: each in the order of the conditioners.
    """

    def __init__(self, conditioners: list[Conditioner], vocab_size: int, width: int) -> None:
        prefixes = [c.prefix for c in conditioners if c.prefix is not None]
        self.table = np.concatenate([np.zeros((0, width), np.float32), *prefixes])
        self.all: list[Steering] = []
        first = vocab_size
        for conditioner in conditioners:
            ids = conditioner.text
            if conditioner.prefix is not None:
                ids = np.arange(first, first + len(conditioner.prefix), dtype=np.int32)
                first += len(ids)
            self.all.append(Steering(ids, conditioner.shifts))

    def __getitem__(self, i: int) -> Steering:
        return self.all[i]
