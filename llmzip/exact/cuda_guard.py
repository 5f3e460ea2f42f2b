"""Who may use a GPU at one time, and what is said where its memory is full."""

from __future__ import annotations

import re
import threading
from types import TracebackType

from llmzip.errors import DeviceMemoryError


class Guard:
    """A lock to be held while a device is used, as often as its thread likes; a full memory ends it in one line.

    Raises:
        DeviceMemoryError: from `with`, where torch found no room.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        # Torch's allocator has a class of its own for it, the driver's other calls have only these words.
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise _told(error) from error


def _told(error: RuntimeError) -> DeviceMemoryError:
    wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return DeviceMemoryError(
        f"cuda: expected room for {wanted[1] if wanted else 'something'} more in the GPU's memory, found it full; "
        "lower --lanes, or take --device cpu"
    )
