"""How fast an engine codes: decoding against lanes, encoding against windows that are evaluated together.

Chunks have a window of tokens each. What is compiled and captured when it is first used is no part of the times: lanes
take some steps before, from which on all are alike, and windows are encoded once before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bench.coding import Coding
from bench.results import Figure
from bench.timing import Spread, interleave
from llmzip.codec import Codec, Tokens
from llmzip.errors import ExactnessError
from llmzip.lanes import Lanes

# What is encoded is windows enough to be evaluated together so often.
ENCODED_TIMES = 4
# As the program has on a device: while one evaluates windows, the other brings more.
ENCODING_THREADS = 2
# Of a number of lanes the first step runs, the second is captured, all others repeat that.
WARM_STEPS = 3
TOGETHER = {"decode": "lanes", "encode": "windows together"}


class Speed(NamedTuple):
    """What a model reached, the median of repetitions.

    Attributes:
        model: its name.
        window: tokens of a chunk.
        way: `encode` or `decode`.
        n_together: windows or lanes.
        n_raw: bytes of text.
        spread: seconds.
    """

    model: str
    window: int
    way: str
    n_together: int
    n_raw: int
    spread: Spread

    @property
    def kilobytes(self) -> float:
        """Of raw text in a second."""
        return self.n_raw / self.spread.p50 / 1000

    def row(self) -> str:
        """A row of the table."""
        together = f"{self.n_together:,} {TOGETHER[self.way]}"
        return f"| {self.model} | {self.window:,} | {self.way} | {together} | {self.kilobytes:,.1f} |"

    def figures(self) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{self.model}, windows of {self.window}, {self.n_together} {TOGETHER[self.way]}"
        yield Figure(case, self.way, self.spread.p50, "s", self.spread)
        yield Figure(case, f"{self.way} speed", self.kilobytes, "KB/s")


def coding_of(codec: Codec, raw: bytes, *numbers: int) -> Coding:
    """Chunks of a window, as many as the greatest number; the text is gone through again and again to fill them."""
    n, window = max(numbers), codec.windowing.window
    chunks = np.resize(codec.tokenise([raw])[0], n * window).reshape(n, window)
    return Coding(codec, list(chunks), 1, ENCODING_THREADS)


def decode_speed(coding: Coding, model: str, n_lanes: int, repeats: int) -> Speed:
    """Of the first chunks of a coding, one a lane.

    Raises:
        DeviceMemoryError: there is no room for so many lanes.
        ExactnessError: other bytes come back.
    """
    decoding = _Decoding(coding, n_lanes)
    decoding.warm_up()
    seconds = interleave({"decode": decoding.run}, repeats)["decode"]
    n_raw = sum(map(len, coding.raws[:n_lanes]))
    return Speed(model, coding.codec.windowing.window, "decode", n_lanes, n_raw, Spread.of(seconds))


def encode_speed(coding: Coding, model: str, n_together: int, n_chunks: int, repeats: int) -> Speed:
    """Of the first chunks of a coding, so many of which are evaluated together.

    Raises:
        DeviceMemoryError: there is no room for so many windows.
        ExactnessError: their payloads are not those of the coding.
    """
    window = coding.codec.windowing.window
    codec = coding.codec.with_windowing(coding.codec.windowing)
    codec.sizes = codec.sizes._replace(windows=n_together, rows=n_together * window)
    own = Coding(codec, coding.chunks[:n_chunks], 1, ENCODING_THREADS)
    if own.payloads != coding.payloads[:n_chunks]:
        raise ExactnessError(f"encode: expected the same payloads of {n_together} windows together, found others")
    seconds = interleave({"encode": own.encode}, repeats)["encode"]
    return Speed(model, window, "encode", n_together, own.n_raw, Spread.of(seconds))


def n_encoded(codec: Codec, n_together: int, n_tokens: int) -> int:
    """How many chunks are encoded, of so many tokens at least."""
    return max(-(-n_tokens // codec.windowing.window), ENCODED_TIMES * n_together)


class _Decoding:
    """Lanes of one thread, and a chunk for each; used again, since what is captured lies with them."""

    def __init__(self, coding: Coding, n_lanes: int) -> None:
        self._payloads, self._raws = coding.payloads[:n_lanes], coding.raws[:n_lanes]
        self._lanes = Lanes(coding.codec, n_lanes)

    def warm_up(self) -> None:
        """Take the steps after which all are alike."""
        lanes = self._begin()
        for _ in range(WARM_STEPS):
            self._lanes.step(lanes)

    def run(self) -> None:
        """Decode all chunks."""
        active = self._begin()
        while len(active):
            self._lanes.step(active)
            active = np.setdiff1d(active, self._lanes.finished(active))
        if [self._lanes.end(lane) for lane in range(len(self._raws))] != self._raws:
            raise ExactnessError(f"decode: expected the bytes of {len(self._raws)} chunks back, found others")

    def _begin(self) -> Tokens:
        for lane, (payload, raw) in enumerate(zip(self._payloads, self._raws, strict=True)):
            self._lanes.begin(lane, payload, len(raw))
        return np.arange(len(self._raws), dtype=np.int32)
