"""Shows a run to people: a bar at a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from llmzip_training.metrics import flat

# What a bar has room for.
_ON_THE_BAR = {"loss": "loss", "bits_per_byte": "bits/byte", "tokens_per_s": "tokens/s", "held_out/all": "held out"}


class ProgressDisplay:
    """Shows how far a run is, and what it reports.

    Args:
        total: length of the run, in `unit`.
        unit: `step` or `s`.
        done: what is done already.
    """

    def __init__(self, total: float, unit: str, done: float) -> None:
        self._bar: Any = None
        self._shown: dict[str, str] = {}
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, initial=done, file=sys.stderr, dynamic_ncols=True)

    def show(self, facts: Mapping[str, Any], done: float, left_s: float) -> None:
        """Show the newest facts.

        Args:
            facts: a line of metrics.
            done: how far the run is, in its unit.
            left_s: estimate of the training time to come.
        """
        numbers = flat(facts)
        if self._bar is None:
            text = "  ".join(f"{name} {value:.5g}" for name, value in numbers.items())
            print(f"step {facts['step']}  {text}  left {_clock(left_s)}", flush=True)
            return
        self._shown |= {short: f"{numbers[name]:.4g}" for name, short in _ON_THE_BAR.items() if name in numbers}
        self._bar.set_postfix(self._shown | {"left": _clock(left_s)}, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(3725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
