"""Opening what a command reads and writes: never half a target, never a lost one.

A target is written under another name beside it and renamed at the end, so that it is there in whole or not at all.
That name is always the same, so that what a killed process leaves is found by the next one; a lock tells the two apart.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import typer

from llmzip.errors import ConfigError, FileExistsRefusedError, NotARegularFileError, TerminalRefusedError
from llmzip.own_file import open_own, written_whole

SUFFIX = ".llmz"
STANDARD = "-"
# Names of files have 255 bytes at most; this leaves room for what is put around one.
_MAX_NAME = 230
_PART, _JOURNAL = "llmzip-part", "llmzip-journal"


def source_name(source: str | None) -> str:
    """Give the input's name; standard input if none was given and something is piped in."""
    if source is None:
        if sys.stdin.isatty():
            raise typer.BadParameter("expected a file, or data on standard input", param_hint="IN")
        return STANDARD
    return source


def compressed_name(source: str) -> str:
    """Give the default target of compress."""
    if source == STANDARD:
        return STANDARD
    if Path(source).name in ("", ".."):
        raise ConfigError(f"{source}: expected a name to add {SUFFIX} to; say where to write: compress IN OUT")
    return str(Path(source)) + SUFFIX


def decompressed_name(source: str) -> str:
    """Give the default target of decompress."""
    if source == STANDARD:
        return STANDARD
    if not source.endswith(SUFFIX) or Path(source).name == SUFFIX:
        raise ConfigError(f"{source}: expected a name that ends in {SUFFIX}; say where to write: decompress IN OUT")
    return source.removesuffix(SUFFIX)


@contextmanager
def open_source(name: str, *, binary: bool) -> Iterator[BinaryIO]:
    """Open an input.

    Args:
        name: a path, or `-` for standard input.
        binary: refuse to read from a terminal.

    Raises:
        OSError: it cannot be read.
        NotARegularFileError: it is a directory.
        TerminalRefusedError: it is a terminal, and `binary`.
    """
    if name == STANDARD:
        if binary and sys.stdin.isatty():
            raise TerminalRefusedError("an archive is not read from a terminal", path="standard input")
        yield sys.stdin.buffer
        return
    if Path(name).is_dir():
        raise NotARegularFileError("expected a file, found a directory", path=name)
    with Path(name).open("rb") as file:
        yield file


@contextmanager
def open_archive(name: str) -> Iterator[BinaryIO]:
    """Open an archive that must be able to seek.

    Raises:
        OSError, NotARegularFileError, TerminalRefusedError: as `open_source`.
        ConfigError: it is a pipe.
    """
    with open_source(name, binary=True) as source:
        if not source.seekable():
            raise ConfigError(f"{name}: expected a file, found a pipe")
        yield source


@contextmanager
def open_target(name: str, source: str, *, force: bool, binary: bool) -> Iterator[BinaryIO]:
    """Open an output, which appears under its name only when the block ends without an error.

    It gets the permissions and the time of the source.

    Args:
        name: a path, or `-` for standard output.
        source: the input's path, or `-`.
        force: replace a file that exists, write binary data to a terminal.
        binary: the output is not text.

    Raises:
        OSError: it cannot be written.
        FileExistsRefusedError: it exists, and not `force`.
        NotARegularFileError: it is a directory.
        ConfigError: it is the input.
        TerminalRefusedError: it is a terminal, and `binary`, and not `force`.
    """
    if name == STANDARD:
        if binary and not force and sys.stdout.isatty():
            raise TerminalRefusedError(
                "binary data is not written to a terminal; use -f to do so", path="standard output"
            )
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.is_dir():
        raise NotARegularFileError("expected a file, found a directory", path=name)
    if is_special(name):
        with path.open("wb") as device:
            yield device
        return
    if source != STANDARD and path.exists() and path.samefile(source):
        raise ConfigError(f"{name}: input and output are the same file")
    _refuse_existing(path, force)
    place = path.resolve()
    part = _beside(place, _PART)

    def settle(file: BinaryIO) -> None:
        # It was asked before; meanwhile somebody may have made it.
        _refuse_existing(path, force)
        os.fsync(file.fileno())
        _copy_status(source, part)

    with written_whole(part, place, settle) as file:
        yield file
    _sync_folder(place.parent)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise FileExistsRefusedError("exists already; use -f to overwrite", path=str(path))


@contextmanager
def open_journal(target: str, *, resume: bool) -> Iterator[BinaryIO | None]:
    """Open what keeps the work on a target that is not whole yet; `None` if the target is no file.

    It is removed at the end. After an interruption it stays with `resume`; after a kill it always does.

    Args:
        target: a path, or `-` for standard output.
        resume: go on with what an earlier run has left, and leave it for a later one.
    """
    path = Path(target).resolve()
    if target == STANDARD or is_special(target):
        yield None
        return
    journal = _beside(path, _JOURNAL)
    with open_own(journal, path) as file:
        try:
            if not resume:
                file.truncate(0)
            yield file
        except BaseException:
            if not resume:
                journal.unlink(missing_ok=True)
            raise
        journal.unlink(missing_ok=True)


def is_special(target: str) -> bool:
    """Whether a target is there and is neither a file nor a folder: a device or a pipe, which keeps nothing."""
    path = Path(target)
    return target != STANDARD and path.exists() and not path.is_file() and not path.is_dir()


def files_of(target: str) -> list[Path]:
    """A target, and what stands beside it while it is not whole."""
    if target == STANDARD:
        return []
    path = Path(target).resolve()
    return [path, _beside(path, _PART), _beside(path, _JOURNAL)]


def _beside(path: Path, kind: str) -> Path:
    """A name for a file of ours in the folder of `path`, no longer than file systems allow."""
    name = path.name if len(os.fsencode(path.name)) <= _MAX_NAME else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{name}.{kind}")


def _copy_status(source: str, target: Path) -> None:
    """Give permissions and time of the source, or the usual permissions of a new file."""
    status = None if source == STANDARD else Path(source).stat()
    if status is None or not stat.S_ISREG(status.st_mode):
        umask = os.umask(0)
        os.umask(umask)
        target.chmod(0o666 & ~umask)
        return
    target.chmod(stat.S_IMODE(status.st_mode) & 0o777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _sync_folder(folder: Path) -> None:
    """Make the new name as durable as the contents, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
