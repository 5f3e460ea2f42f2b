"""Files of ours beside a user's: written under their own names, locked meanwhile, renamed when they are whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmzip.errors import FileExistsRefusedError


@contextmanager
def open_own(part: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file that no other process has open, new or as it was left.

    Args:
        part: the file.
        path: the user's file that it is for, named in errors.

    Raises:
        OSError: it cannot be opened; no link is followed.
        FileExistsRefusedError: another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        try:
            handle = os.open(part, flags, 0o600)
        except OSError as error:
            error.filename = str(path)
            raise
        with os.fdopen(handle, "r+b") as file:
            _lock(file, path)
            # Between opening and locking, its owner may have renamed or removed it.
            if part.exists() and os.path.samestat(os.fstat(handle), part.lstat()):
                yield file
                return


@contextmanager
def written_whole(part: Path, path: Path, settle: Callable[[BinaryIO], None]) -> Iterator[BinaryIO]:
    """Open a file that takes its place when the block ends; on any error or interruption it is removed.

    Args:
        part: where it is written.
        path: its place.
        settle: gives it what else belongs to it, when its content is written.

    Raises:
        OSError, FileExistsRefusedError: as `open_own`.
    """
    with open_own(part, path) as file:
        try:
            file.truncate(0)
            yield file
            file.flush()
            settle(file)
            if os.name == "nt":
                file.close()
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock a file until it is closed, where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return
        raise FileExistsRefusedError("another llmzip is writing it at the moment", path=str(path)) from None
