"""How a chunk's tokens are covered by windows. SPEC.md, section 9.

The first window begins with BOS and codes `window` tokens; each further one begins with BOS and the last `overlap`
tokens, and codes `window - overlap`. What a conditioner puts behind BOS takes its places from the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from llmzip.errors import ConfigError


class Window(NamedTuple):
    """One window of a chunk: it sees `tokens[start:stop - 1]` after BOS and codes `tokens[coded:stop]`."""

    start: int
    coded: int
    stop: int


@dataclass(frozen=True)
class Windowing:
    """How a chunk's tokens are covered. SPEC.md, section 9."""

    window: int
    overlap: int

    def cover(self, n_tokens: int) -> Iterator[Window]:
        """The windows of a chunk of `n_tokens` tokens, in order."""
        start = coded = 0
        while coded < n_tokens:
            stop = min(start + self.window, n_tokens) if coded == 0 else min(coded + self._step, n_tokens)
            yield Window(start, coded, stop)
            coded = stop
            start = stop - self.overlap

    def beside(self, n_positions: int) -> Windowing:
        """The windows that are left beside a conditioner of so many positions.

        Raises:
            ConfigError: there is no room for text.
        """
        if self.window - n_positions <= self.overlap:
            message = f"window: expected more than {self.overlap + n_positions} tokens for overlap and conditioner"
            raise ConfigError(f"{message}, found {self.window}")
        return Windowing(self.window - n_positions, self.overlap)

    @property
    def _step(self) -> int:
        return self.window - self.overlap
