"""Command-line arguments that several benchmarks share, and what is read by them."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmzip.errors import ConfigError


def positive(text: str) -> int:
    """A whole number of at least 1.

    >>> positive("64")
    64
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def positives(text: str) -> list[int]:
    """Such numbers, with commas between.

    >>> positives("1,8,64")
    [1, 8, 64]
    """
    return [positive(part) for part in text.split(",")]


def numbers(text: str) -> list[int]:
    """Whole numbers of at least 0, with commas between.

    >>> numbers("0,1,2")
    [0, 1, 2]
    """
    values = [int(part) for part in text.split(",")]
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, found {min(values)}")
    return values


def read_text(path: Path, n_bytes: int | None = None) -> bytes:
    """The first bytes of a file, all of them by default.

    Raises:
        ConfigError: there are none.
    """
    with path.open("rb") as file:
        raw = file.read(n_bytes)
    if not raw:
        raise ConfigError(f"{path}: expected at least one byte, found none")
    return raw
