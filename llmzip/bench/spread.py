"""What repetitions of one measurement say together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Number of repetitions, and the value below which 20, 50 and 80 of a hundred lie."""

    repeats: int
    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one repetition, with straight lines between neighbours.

        >>> Spread.of([4.0, 1.0, 2.0])
        Spread(repeats=3, p20=1.4, p50=2.0, p80=3.2)
        """
        ordered = sorted(values)
        if len(ordered) == 1:
            return cls(1, *ordered * 3)
        fifths = statistics.quantiles(ordered, n=5, method="inclusive")
        return cls(len(ordered), fifths[0], statistics.median(ordered), fifths[3])
