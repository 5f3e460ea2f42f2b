"""Members of an archive to files, folders and links: nothing outside the folder, each file whole or not at all.

Everything is checked before anything is made. A file is written under another name beside its place and renamed; links
are made after all files, and none is followed on the way to a member.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmzip.contents import Place, read_contents
from llmzip.encoding import Progress
from llmzip.errors import FileExistsRefusedError, FormatError
from llmzip.members import Kind, Member, printable
from llmzip.options import DecompressOptions
from llmzip.own_file import written_whole
from llmzip.resources import check_size

# Not those that lend the rights of an owner or a group.
_BITS = 0o1777
_OWN_FOLDER = 0o700
_PART = re.compile(rb"\.llmzip-[0-9a-f]{16}\.part")
_DEVICES = re.compile(rb"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)", re.IGNORECASE)


class Extractor:
    """Makes members in a folder.

    Args:
        folder: where; made if it is not there.
        force: replace files and links that exist.
        resume: leave files as they are that have their member's size and time.
        any_links: also make links that lead out of the folder.
    """

    def __init__(self, folder: str, *, force: bool = False, resume: bool = False, any_links: bool = False) -> None:
        self._folder = Path(folder)
        self._force, self._resume, self._any_links = force, resume, any_links

    def extract(
        self, file: BinaryIO, places: Sequence[Place], options: DecompressOptions, progress: Progress | None = None
    ) -> None:
        """Make the members.

        Args:
            file: the archive.
            places: of the members, in the order of the archive.
            options: where to find the model.
            progress: told the bytes written so far, and 0.

        Raises:
            FormatError: a member cannot be made safely, or the content is damaged.
            FileError: a member cannot be made, or is there already.
        """
        self._check(places)
        check_size(sum(place.member.size for place in places), options)
        self._folder.mkdir(parents=True, exist_ok=True)
        files, folders, links = ([place for place in places if place.member.kind is kind] for kind in Kind)
        for place in folders:
            # Nobody else looks into it before it has its own mode, which comes last.
            self._make_folder(place.member.path, _OWN_FOLDER)
        missing = [place for place in files if not self._is_there(place.member)]
        for place in links:
            self._is_there(place.member)
        n_written = 0
        for place, pieces in read_contents(file, missing, options):
            with self._new_file(place.member) as target:
                for piece in pieces:
                    target.write(piece)
                    n_written += len(piece)
                    if progress:
                        progress(n_written, 0)
        for place in links:
            self._make_link(place.member)
        for place in reversed(folders):
            _set_status(self._path(place.member.path), place.member)

    def _check(self, places: Sequence[Place]) -> None:
        """Refuse what must not be made."""
        for place in places:
            member = place.member
            if os.name == "nt":
                check_windows_path(member.path)
            if _PART.fullmatch(member.path.rpartition(b"/")[2]):
                raise FormatError(
                    f"expected other names than those of unfinished files, found {printable(member.path)}",
                    field="member path",
                )
            if member.kind is Kind.LINK and not self._any_links and leads_out(member):
                raise FormatError(
                    f"{printable(member.path)}: expected a link within the folder, found one to "
                    f"{printable(member.target)}; --any-links makes it all the same",
                    field="member target",
                )

    def _path(self, path: bytes) -> Path:
        return self._folder / os.fsdecode(path)

    def _make_folder(self, path: bytes, mode: int = 0o777) -> None:
        """Make a folder and those above it; a link or a file in its place is refused."""
        names = path.split(b"/")
        for n in range(1, len(names) + 1):
            full = self._path(b"/".join(names[:n]))
            try:
                full.mkdir(mode if n == len(names) else 0o777)
            except FileExistsError:
                if not stat.S_ISDIR(full.lstat().st_mode):
                    raise FileExistsRefusedError(
                        "expected a folder or nothing, found a file or link", path=printable(full)
                    ) from None

    def _is_there(self, member: Member) -> bool:
        """Whether a member need not be made again; what must not be replaced is refused."""
        parent = member.path.rpartition(b"/")[0]
        if parent:
            self._make_folder(parent)
        path = self._path(member.path)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode):
            raise FileExistsRefusedError("expected a file or nothing, found a folder", path=printable(path))
        if self._resume and _is_whole(path, status, member):
            return True
        if not self._force:
            raise FileExistsRefusedError("exists already; use -f to overwrite", path=printable(path))
        return False

    @contextmanager
    def _new_file(self, member: Member) -> Iterator[BinaryIO]:
        """A file that takes its place, with mode and time, when the block ends without an error."""
        path = self._path(member.path)
        part = _part_name(path)

        def settle(_file: BinaryIO) -> None:
            _set_status(part, member)
            # It was asked before; meanwhile somebody may have made it.
            self._is_there(member)

        with written_whole(part, path, settle) as file:
            yield file

    def _make_link(self, member: Member) -> None:
        path = self._path(member.path)
        if self._is_there(member):
            return
        part = _part_name(path)
        part.unlink(missing_ok=True)
        part.symlink_to(os.fsdecode(member.target))
        _set_status(part, member)
        part.replace(path)


def leads_out(link: Member) -> bool:
    """Whether a link may lead out of the folder that its path begins in.

    So do targets that are absolute, and those with more `..` than folders above the link. A `..` behind a name is
    refused as well: the name may be that of another link, and what is above its target lies elsewhere.

    >>> leads_out(Member(b"a/b", Kind.LINK, 0o777, 0, target=b"../../c"))
    True
    """
    target = link.target.replace(b"\\", b"/") if os.name == "nt" else link.target
    if target.startswith(b"/") or re.match(rb"[A-Za-z]:", target):
        return True
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    n_up = names.count(b"..")
    return n_up > link.path.count(b"/") or names[:n_up] != [b".."] * n_up


def check_windows_path(path: bytes) -> None:
    """Refuse names that mean something else on Windows: drives, streams, devices, separators.

    Raises:
        FormatError: so it is.
    """
    for name in path.split(b"/"):
        device = _DEVICES.fullmatch(name.partition(b".")[0].rstrip(b" "))
        if device or re.search(rb'[<>:"|?*\\\x00-\x1f]', name) or name.endswith((b".", b" ")):
            raise FormatError(f"expected names that Windows allows, found {printable(path)}", field="member path")


def _is_whole(path: Path, status: os.stat_result, member: Member) -> bool:
    """Whether what is there is what the member would be made to."""
    if member.kind is Kind.LINK:
        return stat.S_ISLNK(status.st_mode) and os.fsencode(path.readlink()) == member.target
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (member.size, member.mtime_ns)


def _part_name(path: Path) -> Path:
    """Where a file is written before it is whole: the same name each time, so that nothing is left behind for long."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".llmzip-{digest[:16]}.part")


def _set_status(path: Path, member: Member) -> None:
    """Give a path its member's mode and time; links have a time only, where the system can set it."""
    if member.kind is not Kind.LINK:
        path.chmod(member.mode & _BITS)
        os.utime(path, ns=(member.mtime_ns, member.mtime_ns))
    elif os.utime in os.supports_follow_symlinks:
        os.utime(path, ns=(member.mtime_ns, member.mtime_ns), follow_symlinks=False)
