"""Time on a machine that others use too: cases take turns, and medians are compared.

A slow minute then slows a repetition of every case instead of all repetitions of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from llmzip.bench.spread import Spread

__all__ = ["REST_SECONDS", "Spread", "interleave", "seconds_of"]

REST_SECONDS = 0.3


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
