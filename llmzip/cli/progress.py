"""Telling a person at a terminal how far a long work is: bytes, ratio so far, speed, time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int], None]


class Progress:
    """What a work reports, and what is shown of it.

    Attributes:
        raw_length: raw bytes done.
        archive_length: bytes of the archive done.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._started = time.monotonic()
        self.raw_length = 0
        self.archive_length = 0

    def report(self, raw_length: int, archive_length: int) -> None:
        """Take the totals so far."""
        if self._bar is not None:
            if raw_length and archive_length:
                self._bar.set_postfix_str(f"{archive_length / raw_length:.1%}", refresh=False)
            self._bar.update(raw_length - self.raw_length)
        self.raw_length = raw_length
        self.archive_length = archive_length

    def summary(self) -> str:
        """Say sizes, ratio and speed."""
        seconds = time.monotonic() - self._started
        ratio = f"{self.archive_length / self.raw_length:.2%}" if self.raw_length else "-"
        speed = self.raw_length / max(seconds, 1e-9) / 1000
        sizes = f"{self.raw_length} raw bytes, {self.archive_length} in the archive ({ratio})"
        return f"{sizes}, {seconds:.1f} s, {speed:.1f} kB/s"


@contextmanager
def shown(label: str, total: Callable[[], int | None], *, quiet: bool) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Args:
        label: what is being worked on.
        total: gives the raw bytes to come, or `None` if they are not known; asked only if a bar is shown.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield Progress(None)
        return
    from tqdm import tqdm

    with (
        tqdm(desc=label, total=total(), unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar,
        _told(lambda text: bar.write(f"llmzip: {text}", file=sys.stderr)),
    ):
        yield Progress(bar)


@contextmanager
def _told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell what takes long for another reason than the data, as the modules log it."""
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: tell(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("llmzip")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
