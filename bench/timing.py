"""Time on a machine that others use too: cases take turns, and medians are compared.

A slow minute then slows a repetition of every case instead of all repetitions of one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

REST_SECONDS = 0.3


@dataclass(frozen=True)
class Spread:
    """Number of repetitions, and the time below which 20, 50 and 80 of a hundred lie."""

    repeats: int
    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        """The spread of at least one repetition, with straight lines between neighbours.

        >>> Spread.of([4.0, 1.0, 2.0])
        Spread(repeats=3, p20=1.4, p50=2.0, p80=3.2)
        """
        values = sorted(seconds)
        if len(values) == 1:
            return cls(1, *values * 3)
        fifths = statistics.quantiles(values, n=5, method="inclusive")
        return cls(len(values), fifths[0], statistics.median(values), fifths[3])


def interleave(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Run all cases in turn, `repeats` times; the seconds of each case's runs.

    Between them is a rest: OpenMP's threads spin for a while after torch's products and would take a core
    from the next case.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            time.sleep(REST_SECONDS)
            seconds[name].append(seconds_of(case))
    return seconds


def seconds_of(case: Callable[[], object]) -> float:
    """Wall-clock seconds of one run."""
    start = time.perf_counter()
    case()
    return time.perf_counter() - start
