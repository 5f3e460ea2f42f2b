"""The most memory that a process and its children have had.

Linux tells each process's own peak under `/proc`; added up over the processes that live at one moment, and the greatest
of these sums taken, it is that of the whole tree, pages that they share counted in each. Elsewhere `getrusage` tells
that of one process. Of programs that live too shortly to be looked at, it tells the most that one of them had, or that
the process that started them had at that moment.

Memory of a GPU is told by torch, in the process that uses it.
"""

from __future__ import annotations

import sys
from pathlib import Path

_KIB = 1024


def own_peak() -> int | None:
    """Of this process, in bytes; None where the system does not tell."""
    return _peak_of("self") or _usage("RUSAGE_SELF")


def gpu_peak() -> int | None:
    """The most memory of a GPU that this process had reserved, in bytes; None where it has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def childrens_peak() -> int | None:
    """Of the greatest of the processes that this one has started and waited for."""
    return _usage("RUSAGE_CHILDREN")


def _usage(who: str) -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(getattr(resource, who)).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def tree_peak(process_id: int, *, with_root: bool) -> int:
    """Of the processes below one, and perhaps itself, as far as they have come; 0 where the system does not tell.

    Args:
        process_id: of the one.
        with_root: count it too.
    """
    below = sum(tree_peak(child, with_root=True) for child in _children(process_id))
    return below + (_peak_of(str(process_id)) if with_root else 0)


def _children(process_id: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process_id}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _peak_of(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith("VmHWM"))
