"""Rows: what was measured of a contender on a file, or why it was not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from llmzip.bench.spread import Spread


class Status(StrEnum):
    """How it went."""

    OK = "ok"
    MISSING = "missing"  # the contender is not installed
    FAILED = "failed"  # it ended with an error
    WRONG = "wrong"  # other bytes came back
    UNREADABLE = "unreadable"  # the file could not be read, so that nobody tried


@dataclass(frozen=True)
class Way:
    """Encoding or decoding.

    Attributes:
        seconds: over the repetitions.
        speed: the same in KB/s, 1,000 raw bytes a second.
        warm_up_seconds: what came before, the least of all.
        peak_bytes: the most memory of all; None where the system does not tell.
        gpu_peak_bytes: the most memory of a GPU; None where there was none.
    """

    seconds: Spread
    speed: Spread
    warm_up_seconds: float
    peak_bytes: int | None
    gpu_peak_bytes: int | None = None


@dataclass(frozen=True)
class Row:
    """One contender on one file.

    Attributes:
        file: its name in the table.
        key: what the user calls the contender.
        contender: its name, with its settings.
        has_model: whether it is llmzip.
        status: how it went.
        reason: why it did not go well.
        exit_code: of the command for that; 0 where it is no failure.
        n_raw: bytes of the file.
        n_packed: bytes that the contender made of it.
        model_bytes: of the model that decoding needs.
        encode, decode: speed and memory.
        settings: device, threads, windows, chunk size, where they are known.
        best_opponent: the one with the smallest result on this file.
        break_even: bytes of such content from which on the model's bytes are paid for, against that opponent; None
            where they never are.
    """

    file: str
    key: str
    contender: str
    has_model: bool
    status: Status
    reason: str = ""
    exit_code: int = 0
    n_raw: int = 0
    n_packed: int = 0
    model_bytes: int = 0
    encode: Way | None = None
    decode: Way | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    best_opponent: str = ""
    break_even: int | None = None

    @property
    def bits_per_byte(self) -> float:
        """Bits of the result for each byte of the file; the model is not counted."""
        return 8 * self.n_packed / self.n_raw

    @property
    def bits_per_byte_with_model(self) -> float:
        """The same, as if every archive had to bring its model along."""
        return 8 * (self.n_packed + self.model_bytes) / self.n_raw


def with_break_even(rows: Sequence[Row]) -> list[Row]:
    """The rows of one file, those with a model held against the best opponent among them.

    Both ratios are taken to stay what they are on longer content of this kind.
    """
    opponents = [row for row in rows if row.status is Status.OK and not row.has_model]
    if not opponents:
        return list(rows)
    best = min(opponents, key=lambda row: row.n_packed)
    return [_held_against(best, row) if row.status is Status.OK and row.has_model else row for row in rows]


def _held_against(best: Row, row: Row) -> Row:
    gain = best.n_packed - row.n_packed
    # Rounded up: from this byte on.
    break_even = -(-row.model_bytes * row.n_raw // gain) if gain > 0 else None
    return replace(row, best_opponent=best.contender, break_even=break_even)


def totals(rows: Iterable[Row]) -> list[Row]:
    """A row for each contender that came through on every file that could be read, over all of them together."""
    rows = [row for row in rows if row.status is not Status.UNREADABLE]
    n_files = len({row.file for row in rows})
    found = []
    for key in dict.fromkeys(row.key for row in rows):
        own = [row for row in rows if row.key == key]
        if len(own) == n_files and all(row.status is Status.OK for row in own):
            found.append(_total(own, n_files))
    return with_break_even(found)


def _total(rows: Sequence[Row], n_files: int) -> Row:
    names = {row.contender: None for row in rows}
    n_raw = sum(row.n_raw for row in rows)
    return replace(
        rows[0],
        file=f"all {n_files} files",
        contender=next(iter(names)) if len(names) == 1 else f"{rows[0].key}, best of each",
        n_raw=n_raw,
        n_packed=sum(row.n_packed for row in rows),
        encode=_total_way([row.encode for row in rows], n_raw),
        decode=_total_way([row.decode for row in rows], n_raw),
    )


def _total_way(ways: Sequence[Way | None], n_raw: int) -> Way:
    """The sum of the medians' seconds, the greatest memory."""
    all_ways = [way for way in ways if way is not None]
    seconds = sum(way.seconds.p50 for way in all_ways)
    warm_up = min(way.warm_up_seconds for way in all_ways)
    peak = greatest(way.peak_bytes for way in all_ways)
    gpu_peak = greatest(way.gpu_peak_bytes for way in all_ways)
    return Way(Spread.of([seconds]), Spread.of([n_raw / 1000 / seconds]), warm_up, peak, gpu_peak)


def greatest(values: Iterable[int | None]) -> int | None:
    """The greatest of those that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)
