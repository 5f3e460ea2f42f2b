"""The member table: which files a frame's content is made of. SPEC.md, section 4.2.

A table is checked as a whole before anything is made of it: no path leaves the folder that it is extracted to, none
stands twice, and none lies below one that is not a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from llmzip.errors import FormatError, LimitError
from llmzip.format import Sections
from llmzip.format.limits import MAX_MEMBERS, MAX_PATH_DEPTH, MAX_PATH_LENGTH, MAX_TABLE_LENGTH, MAX_VARINT_SIZE
from llmzip.format.varint import pack_varint, unpack_varint
from llmzip.general import compress_general, decompress_general

_PERMISSIONS = 0o7777


class Kind(IntEnum):
    """What a member is."""

    FILE = 0
    FOLDER = 1
    LINK = 2


@dataclass(frozen=True, slots=True)
class Member:
    """One file, folder or symbolic link.

    Attributes:
        path: its name, parts separated by `/`, as the file system has them: bytes, usually UTF-8.
        kind: what it is.
        mode: the 12 permission bits of POSIX.
        mtime_ns: nanoseconds since 1970-01-01 UTC.
        size: bytes of content; 0 unless it is a file.
        target: what a link points to; empty unless it is one.
    """

    path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no table can hold."""
        check_path(self.path)
        if not 0 <= self.mode <= _PERMISSIONS:
            raise FormatError(f"expected permission bits up to 7777, found {self.mode:o}", field="member mode")
        if len(self.target) > MAX_PATH_LENGTH:
            raise LimitError(
                f"at most {MAX_PATH_LENGTH} bytes allowed, found {len(self.target)}", field="member target"
            )
        if (self.kind is Kind.LINK) != bool(self.target) or b"\0" in self.target:
            raise FormatError(f"expected one for links only, found {self.target[:100]!r}", field="member target")


def check_path(path: bytes) -> None:
    """Refuse a path that is empty, too long, or leads out of the folder that it is put into.

    Raises:
        FormatError: so it is; LimitError where it is too long.
    """
    if len(path) > MAX_PATH_LENGTH:
        raise LimitError(f"at most {MAX_PATH_LENGTH} bytes allowed, found {len(path)}", field="member path")
    if path.count(b"/") >= MAX_PATH_DEPTH:
        raise LimitError(f"at most {MAX_PATH_DEPTH} names allowed, found {path.count(b'/') + 1}", field="member path")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise FormatError(
            f"expected names between single strokes, none of them . or .., found {printable(path)}", field="member path"
        )


def check_members(members: Iterable[Member]) -> None:
    """Refuse a path that stands twice, or below one that is not a folder, and more members than an archive may have.

    Raises:
        LimitError: too many.
        FormatError: paths that are not allowed.
    """
    kinds: dict[bytes, Kind] = {}
    for member in members:
        check_count(len(kinds) + 1)
        if member.path in kinds:
            raise FormatError(f"expected each path once, found {printable(member.path)} again", field="member path")
        kinds[member.path] = member.kind
    # Folders that hold something, and have been looked at, so that each is looked at once.
    holders: set[bytes] = set()
    for path in kinds:
        parent = path.rpartition(b"/")[0]
        while parent and parent not in holders:
            if kinds.get(parent, Kind.FOLDER) is not Kind.FOLDER:
                raise FormatError(
                    f"expected {printable(parent)} to be a folder, found {printable(path)} below it",
                    field="member path",
                )
            holders.add(parent)
            parent = parent.rpartition(b"/")[0]


def check_count(n_members: int) -> None:
    """Refuse more members than an archive may have."""
    if n_members > MAX_MEMBERS:
        raise LimitError(f"at most {MAX_MEMBERS} allowed, found {n_members} or more", field="members")


def check_sizes(members: Iterable[Member], n_raw: int, offset: int) -> None:
    """Refuse members whose sizes do not sum to the `n_raw` bytes of content of their frame, at `offset`.

    Raises:
        FormatError: so they do not.
    """
    total = sum(member.size for member in members)
    if total != n_raw:
        raise FormatError(
            f"expected members of {n_raw} bytes together, found {total}", field="member size", offset=offset
        )


def printable(path: bytes | Path) -> str:
    r"""A path as a terminal can show it: what is no printable UTF-8 as `\x` and two digits, a backslash doubled.

    >>> printable(b"caf\xc3\xa9/\xff\n")
    'café/\\xff\\x0a'
    """
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    return "".join(_escaped(c) if c == "\\" or not c.isprintable() else c for c in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def pack_members(members: Sequence[Member]) -> bytes:
    """Write a table as the body of its section.

    Raises:
        ValueError: a longer table than a frame may have; `split_members` makes none.
    """
    table = pack_varint(len(members)) + b"".join(map(_pack_member, members))
    if len(table) > MAX_TABLE_LENGTH:
        raise ValueError(f"member table: expected at most {MAX_TABLE_LENGTH} bytes, found {len(table)}")
    payload = compress_general(table)
    return pack_varint(len(table)) + (payload if len(payload) < len(table) else table)


def split_members(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members in runs whose tables are short enough for a frame."""
    run: list[Member] = []
    length = 0
    for member in members:
        own = len(_pack_member(member))
        if length + own > MAX_TABLE_LENGTH - MAX_VARINT_SIZE:
            yield run
            run, length = [], 0
        run.append(member)
        length += own
    if run:
        yield run


def _pack_member(member: Member) -> bytes:
    head = pack_varint(member.kind) + pack_varint(len(member.path)) + member.path
    head += pack_varint(member.mode) + pack_varint(_zigzag(member.mtime_ns))
    if member.kind is Kind.FILE:
        return head + pack_varint(member.size)
    return head + pack_varint(len(member.target)) + member.target if member.kind is Kind.LINK else head


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def members_of(sections: Sections) -> tuple[Member, ...] | None:
    """The members of a frame; None where it has no table."""
    return None if sections.member_table is None else unpack_members(sections.member_table)


def unpack_members(body: bytes) -> tuple[Member, ...]:
    """Read the body of the section.

    Raises:
        LimitError: a longer table than a frame may have.
        FormatError: it is not what `pack_members` writes, or a member is not allowed.
    """
    outer = _Fields(body)
    n_table = outer.varint("member table length")
    if n_table > MAX_TABLE_LENGTH:
        raise LimitError(f"at most {MAX_TABLE_LENGTH} bytes allowed, found {n_table}", field="member table length")
    payload = outer.rest()
    fields = _Fields(payload if len(payload) == n_table else decompress_general(payload, n_table))
    members = tuple(_unpack_member(fields) for _ in range(fields.varint("members")))
    if fields.rest():
        raise FormatError("expected its end behind the last member, found more", field="member table")
    check_members(members)
    return members


def _unpack_member(fields: _Fields) -> Member:
    kind = fields.varint("member kind")
    if kind not in list(Kind):
        raise FormatError(f"expected 0, 1 or 2, found {kind}", field="member kind")
    path = fields.take(fields.varint("member path length"), "member path")
    mode, mtime = fields.varint("member mode"), fields.varint("member mtime")
    mtime_ns = mtime >> 1 if mtime % 2 == 0 else -(mtime >> 1) - 1
    size = fields.varint("member size") if kind == Kind.FILE else 0
    target = fields.take(fields.varint("member target length"), "member target") if kind == Kind.LINK else b""
    return Member(path, Kind(kind), mode, mtime_ns, size, target)


class _Fields:
    """Takes fields from bytes that are all there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def varint(self, field: str) -> int:
        return unpack_varint(lambda: self.take(1, field)[0], field, None)

    def take(self, n: int, field: str) -> bytes:
        data = self._data[self._place : self._place + n]
        if len(data) < n:
            raise FormatError(f"expected {n} bytes in the table, {len(data)} left", field=field)
        self._place += n
        return data

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._place, "rest")
