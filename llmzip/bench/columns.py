"""The columns in which rows are shown, each with its title, its value and how people read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llmzip.bench.rows import Row, Status

Value = float | str | None
_KB, _MB, _GB = 10**3, 10**6, 10**9


class Column(NamedTuple):
    """One of them.

    Attributes:
        title: above it.
        value: what is sorted by; None where there is none.
        text: what is shown.
        about: in a sentence.
    """

    title: str
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    about: str


def size_text(n_bytes: int | None) -> str:
    """A number of bytes in three digits.

    >>> size_text(9_102_269), size_text(None)
    ('9.10 MB', '')
    """
    if n_bytes is None:
        return ""
    for unit, name in ((_GB, "GB"), (_MB, "MB"), (_KB, "KB")):
        if n_bytes >= unit:
            return f"{_digits(n_bytes / unit)} {name}"
    return f"{n_bytes} B"


def _digits(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _ratio_text(bits: float) -> str:
    return f"{bits:.3f}" if bits < 100 else f"{bits:,.0f}"


def _speed(row: Row, *, decode: bool) -> float | None:
    way = row.decode if decode else row.encode
    return way.speed.p50 if way else None


def _speed_text(row: Row, *, decode: bool) -> str:
    speed = _speed(row, decode=decode)
    return "" if speed is None else _digits(speed)


def _peak(row: Row, *, decode: bool) -> int | None:
    way = row.decode if decode else row.encode
    return way.peak_bytes if way else None


def _peak_text(row: Row, *, decode: bool) -> str:
    way = row.decode if decode else row.encode
    gpu = size_text(way.gpu_peak_bytes) if way else ""
    return size_text(_peak(row, decode=decode)) + (f" + {gpu} GPU" if gpu else "")


def _break_even_text(row: Row) -> str:
    if row.status is not Status.OK or not row.has_model or not row.best_opponent:
        return ""
    return "never" if row.break_even is None else size_text(row.break_even)


def _ok(row: Row) -> bool:
    return row.status is Status.OK


COLUMNS = (
    Column(
        "compressor",
        lambda row: row.contender,
        lambda row: row.contender,
        "with its settings; llmzip with the name of its model",
    ),
    Column(
        "bytes",
        lambda row: row.n_packed if _ok(row) else None,
        lambda row: f"{row.n_packed:,}" if _ok(row) else "",
        "the whole archive, or the opponent's whole file",
    ),
    Column(
        "bits/byte",
        lambda row: row.bits_per_byte if _ok(row) else None,
        lambda row: f"{row.bits_per_byte:.3f}" if _ok(row) else "",
        "of the archive, for each byte of the input; the model is not counted",
    ),
    Column(
        "with model",
        lambda row: row.bits_per_byte_with_model if _ok(row) else None,
        lambda row: _ratio_text(row.bits_per_byte_with_model) if _ok(row) else "",
        "the same, as if the archive had to bring its model along",
    ),
    Column(
        "break-even",
        lambda row: row.break_even if _ok(row) else None,
        _break_even_text,
        "bytes of such input from which on archive and model together are smaller than what the best opponent makes, "
        "if both ratios stay",
    ),
    Column(
        "encode, KB/s",
        lambda row: _speed(row, decode=False),
        lambda row: _speed_text(row, decode=False),
        "1,000 bytes of input a second; the median, without start and warm-up",
    ),
    Column(
        "decode, KB/s",
        lambda row: _speed(row, decode=True),
        lambda row: _speed_text(row, decode=True),
        "the same of the way back, each run compared with the input",
    ),
    Column(
        "memory, encode",
        lambda row: _peak(row, decode=False),
        lambda row: _peak_text(row, decode=False),
        "the most that the process had, and those that it started; of a GPU what it had reserved",
    ),
    Column(
        "memory, decode",
        lambda row: _peak(row, decode=True),
        lambda row: _peak_text(row, decode=True),
        "the same of the way back",
    ),
)


def settings_text(row: Row) -> str:
    """Device, threads, windows and chunks of a result, where they are known.

    >>> from llmzip.bench.rows import Row, Status
    >>> settings_text(Row("a", "b", "b", True, Status.OK, settings={"device": "cpu", "threads": 2, "window": 64}))
    'device cpu, threads 2, window 64'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.settings.items())


def problem_text(row: Row) -> str:
    """Why there is nothing to show; empty where there is."""
    return "" if _ok(row) else f"{row.status}: {row.reason}"
