"""When freed memory goes back to the system: what glibc guesses otherwise, wrongly in two cases.

Its threshold follows the sizes of what was freed before. Of chunks that are a little longer than those before, it takes
new memory beside what they leave: 7 of 47 MB (bench.streams). And it gives back the arrays of one step of a model, only
to fault them in again for the next.
"""

from __future__ import annotations

import ctypes
import platform

# Of mallopt: how much may lie free before it goes back to the system, and above which size memory is the system's from
# the beginning (32 MiB is the most it takes).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def return_freed_memory() -> None:
    """Have large blocks go back to the system at once: for chunks, which are few and long."""
    _set(mmap_threshold=1 << 18, trim_threshold=1 << 17)


def keep_freed_memory() -> None:
    """Have freed arrays kept for the next ones: for models.

    Page faults of two threads wait for each other: the products of two cores ran at 144 Gop/s, and at 250 so.
    """
    _set(mmap_threshold=1 << 25, trim_threshold=1 << 30)


def _set(mmap_threshold: int, trim_threshold: int) -> None:
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
