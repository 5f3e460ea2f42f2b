"""Files, folders and links to an archive: each frame a member table and the content of its files.

Sizes stand in the table before any content, so a file that changes while it is read is told: what it lost is an error,
what it gained is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from llmzip.encoding import Progress, StreamCompressor
from llmzip.errors import ConfigError, FileError, FormatError, PermissionRefusedError
from llmzip.format import Sections
from llmzip.format.limits import MAX_MTIME
from llmzip.members import Kind, Member, check_members, pack_members, printable, split_members
from llmzip.options import CompressOptions

Warn = Callable[[str], None]

_PIECE = 1 << 20
_PERMISSIONS = 0o7777


class Packer:
    """What is to be packed, found when it is made.

    Args:
        paths: files, folders (with all that is in them) and symbolic links, which are packed as links. Each goes under
            its own last name; of `.` and `..` goes what is in them.
        leave_out: paths that are not packed, such as the archive itself.
        warn: told of what cannot be packed: sockets, pipes and devices.

    Attributes:
        members: what is packed, in order: a folder, then what is in it, by name.

    Raises:
        FileError: something cannot be read.
        ConfigError: two of the paths have the same last name.
    """

    def __init__(self, paths: Sequence[str], leave_out: Iterable[str | Path] = (), warn: Warn = lambda _: None) -> None:
        self._leave_out = {_place(Path(path)) for path in leave_out}
        self._warn = warn
        self._sources: dict[bytes, Path] = {}
        self.members: list[Member] = []
        for path in map(Path, paths):
            self._find(path, _own_name(path))
        try:
            check_members(self.members)
        except FormatError as error:
            raise ConfigError(f"inputs: {error}; pack the folder that holds them instead") from error

    @property
    def raw_length(self) -> int:
        """Bytes of content of all files."""
        return sum(member.size for member in self.members)

    def write(
        self,
        target: BinaryIO,
        options: CompressOptions,
        progress: Progress | None = None,
        journal: BinaryIO | None = None,
    ) -> None:
        """Write the archive.

        Args:
            target: opened for writing; it needs no seeking.
            options: model and sizes.
            progress: told the raw bytes taken in and the archive bytes written so far.
            journal: see `StreamCompressor`.

        Raises:
            FileError: a file cannot be read, or has become shorter.
        """
        raw_done = written = 0
        for run in list(split_members(self.members)) or [[]]:

            def report(n_raw: int, n_written: int, before: tuple[int, int] = (raw_done, written)) -> None:
                if progress:
                    progress(before[0] + n_raw, before[1] + n_written)

            with StreamCompressor(target, options, report, Sections(pack_members(run)), journal) as compressor:
                for piece in self._content(run):
                    compressor.write(piece)
                compressor.finish()
            raw_done, written = raw_done + compressor.n_raw, written + compressor.n_written

    def _find(self, path: Path, name: bytes) -> None:
        """Take a path and all below it."""
        if _place(path) in self._leave_out:
            return
        status = path.lstat()
        member = _member(path, name, status) if name else None
        if member is not None:
            if member.kind is Kind.FILE and not os.access(path, os.R_OK):
                raise PermissionRefusedError("expected a file that can be read", path=printable(path))
            self.members.append(member)
            self._sources[name] = path
        elif name:
            self._warn(f"{printable(path)}: left out: neither a file nor a folder nor a link")
        if stat.S_ISDIR(status.st_mode):
            prefix = name + b"/" if name else b""
            for entry in sorted(path.iterdir()):
                self._find(entry, prefix + os.fsencode(entry.name))

    def _content(self, members: Iterable[Member]) -> Iterator[bytes]:
        for member in members:
            if member.kind is Kind.FILE:
                yield from _read(self._sources[member.path], member.size)


def _place(path: Path) -> Path:
    """Where a path lies, the links of its folders followed, but not itself if it is one."""
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def _own_name(path: Path) -> bytes:
    """The last name of a path; nothing for the folder at hand and those above it."""
    return b"" if path.name == ".." else os.fsencode(path.name)


def _member(path: Path, name: bytes, status: os.stat_result) -> Member | None:
    """What a path is packed as; None if it is nothing that can be. Times beyond 2116 are those of that year."""
    mode, mtime = status.st_mode & _PERMISSIONS, max(-MAX_MTIME, min(MAX_MTIME, status.st_mtime_ns))
    if stat.S_ISREG(status.st_mode):
        return Member(name, Kind.FILE, mode, mtime, status.st_size)
    if stat.S_ISDIR(status.st_mode):
        return Member(name, Kind.FOLDER, mode, mtime)
    if stat.S_ISLNK(status.st_mode):
        return Member(name, Kind.LINK, mode, mtime, target=os.fsencode(path.readlink()))
    return None


def _read(path: Path, size: int) -> Iterator[bytes]:
    """Exactly the first `size` bytes of a file, which may not have become a link meanwhile."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as file:
        left = size
        while left and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
    if left:
        raise FileError(f"changed while it was read: expected {size} bytes, found {size - left}", path=printable(path))
