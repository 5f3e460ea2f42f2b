"""Opening what a command reads and writes: never half a target, never a lost one.

A target is written under another name beside it and renamed at the end, so that it is there in whole or not at all.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import typer

from llmzip.errors import ConfigError, FileExistsRefusedError, NotARegularFileError, TerminalRefusedError

SUFFIX = ".llmz"
STANDARD = "-"


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
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    if source != STANDARD and path.exists() and path.samefile(source):
        raise ConfigError(f"{name}: input and output are the same file")
    _refuse_existing(path, force)
    with _written_whole(path.resolve(), source) as file:
        yield file
        _refuse_existing(path, force)


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise FileExistsRefusedError("exists already; use -f to overwrite", path=str(path))


@contextmanager
def _written_whole(path: Path, source: str) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place at the end, or is removed on any error or interruption."""
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            _copy_status(source, part)
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _copy_status(source: str, target: str) -> None:
    """Give permissions and time of the source, or the usual permissions of a new file."""
    status = None if source == STANDARD else Path(source).stat()
    if status is None or not stat.S_ISREG(status.st_mode):
        umask = os.umask(0)
        os.umask(umask)
        Path(target).chmod(0o666 & ~umask)
        return
    Path(target).chmod(stat.S_IMODE(status.st_mode) & 0o777)
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
