from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import FormatError, LimitError
from llmzip.format.limits import MAX_TABLE_LENGTH
from llmzip.format.varint import pack_varint
from llmzip.general import compress_general
from llmzip.members import (
    Kind,
    Member,
    check_count,
    check_members,
    check_path,
    check_sizes,
    pack_members,
    printable,
    split_members,
    unpack_members,
)

FILE = Member(b"a/b", Kind.FILE, 0o644, 10**18 + 7, 5)
# kind, path, mode 0644, mtime, size: by SPEC.md, section 4.2.
FILE_BYTES = bytes.fromhex("00 03 612f62 a403") + pack_varint(2 * (10**18 + 7)) + bytes([5])


@st.composite
def _members(draw: st.DrawFn) -> list[Member]:
    """Members of different names, all in one folder of names that are bytes."""
    names = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=12, unique=True))
    members: list[Member] = []
    for name in names:
        path = name.replace(b"/", b"_").replace(b"\0", b"_")
        if path in (b".", b"..") or any(path == member.path for member in members):
            continue
        kind = draw(st.sampled_from(Kind))
        mode, mtime = draw(st.integers(0, 0o7777)), draw(st.integers(-(2**62), 2**62 - 1))
        size = draw(st.integers(0, 2**63 - 1)) if kind is Kind.FILE else 0
        members.append(Member(path, kind, mode, mtime, size, b"target" if kind is Kind.LINK else b""))
    return members


@given(_members())
def test_tables_come_back(members: list[Member]) -> None:
    """Every kind, mode, size and time, also before 1970."""
    assert list(unpack_members(pack_members(members))) == members


def test_table_is_that_of_the_document() -> None:
    """A table of one file, byte for byte; and the same as a general payload."""
    table = b"\x01" + FILE_BYTES
    assert pack_members([FILE]) == bytes([len(table)]) + table
    many = pack_varint(50) + b"".join(
        bytes.fromhex("00 03") + b"%03d" % i + bytes.fromhex("a403 00 00") for i in range(50)
    )
    members = [Member(b"%03d" % i, Kind.FILE, 0o644, 0) for i in range(50)]
    assert pack_members(members) == pack_varint(len(many)) + compress_general(many)
    assert unpack_members(pack_varint(len(many)) + many) == tuple(members)


@pytest.mark.parametrize(
    "path",
    [b"", b"/a", b"a/", b"a//b", b".", b"..", b"./a", b"a/.", b"a/../b", b"../a", b"a/..", b"a\0b", b"/", b"//"],
)
def test_path_that_leads_elsewhere_is_refused(path: bytes) -> None:
    """In a table and in a member that is made here."""
    with pytest.raises(FormatError, match="member path"):
        check_path(path)
    table = b"\x01\x00" + pack_varint(len(path)) + path + bytes.fromhex("a403 00 05")
    with pytest.raises(FormatError, match="member path"):
        unpack_members(pack_varint(len(table)) + table)


@pytest.mark.parametrize("path", [b"...", b"a.", b".a", b"..a", b"C:", b"a\\b", b"-rf", b"\xff\xfe", b"a" * 4096])
def test_path_that_is_only_odd_is_taken(path: bytes) -> None:
    """What a name may be is the file system's business."""
    check_path(path)


def test_path_above_the_limit_is_refused() -> None:
    """4,096 bytes are the most, and 256 names."""
    check_path(b"/".join([b"a"] * 256))
    with pytest.raises(LimitError, match="at most 256 names allowed, found 257"):
        check_path(b"/".join([b"a"] * 257))
    with pytest.raises(LimitError, match="at most 4096 bytes allowed, found 4097"):
        check_path(b"a" * 4097)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([(b"a", 0), (b"a", 0)], "expected each path once, found a again"),
        ([(b"a", 1), (b"a", 1)], "expected each path once, found a again"),
        ([(b"a", 0), (b"a/b", 0)], "expected a to be a folder, found a/b below it"),
        ([(b"a/b/c", 0), (b"a", 2)], "expected a to be a folder, found a/b/c below it"),
        ([(b"a", 1), (b"a/b", 2), (b"a/b/c", 1)], "expected a/b to be a folder, found a/b/c below it"),
    ],
)
def test_members_that_are_in_each_others_way_are_refused(paths: list[tuple[bytes, int]], message: str) -> None:
    """Twice the same path, or something below a file or a link, in any order."""
    members = [Member(path, Kind(kind), 0, 0, target=b"t" if kind == 2 else b"") for path, kind in paths]
    with pytest.raises(FormatError, match=message):
        check_members(members)
    with pytest.raises(FormatError, match=message):
        unpack_members(pack_members(members))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("03 01 61 00 00", "member kind: expected 0, 1 or 2, found 3"),
        ("00 01 61 8040 00 00", "member mode: expected permission bits up to 7777, found 20000"),
        ("02 01 61 00 00 00", "member target: expected one for links only, found b''"),
        ("02 01 61 00 00 02 6100", "member target: expected one for links only"),
        ("00 02 61", "member path: expected 2 bytes in the table, 1 left"),
        ("00 01 61 00 00", "member size: expected 1 bytes in the table, 0 left"),
        ("00 01 61 8000 00 00", "member mode: expected the shortest form of a varint"),
        ("00 01 61 00 00 00 00", "member table: expected its end behind the last member, found more"),
    ],
)
def test_table_that_no_writer_makes_is_refused(entry: str, message: str) -> None:
    """The message names the field."""
    table = b"\x01" + bytes.fromhex(entry)
    with pytest.raises(FormatError, match=message):
        unpack_members(pack_varint(len(table)) + table)


def test_members_that_are_not_there_take_no_memory() -> None:
    """A count beyond the table ends where the table does."""
    table = pack_varint(2**62) + FILE_BYTES
    with pytest.raises(FormatError, match="expected 1 bytes in the table, 0 left"):
        unpack_members(pack_varint(len(table)) + table)


def test_table_above_the_limit_is_refused() -> None:
    """By the length that it promises, before it is decoded."""
    with pytest.raises(LimitError, match=f"at most {MAX_TABLE_LENGTH} bytes allowed"):
        unpack_members(pack_varint(MAX_TABLE_LENGTH + 1) + b"(\xb5/\xfd")


@given(st.binary(max_size=60))
def test_any_bytes_give_members_or_an_error(body: bytes) -> None:
    """Nothing else comes out of a table."""
    try:
        members = unpack_members(body)
    except FormatError:
        return
    assert all(isinstance(member, Member) for member in members)


def test_long_tables_are_split() -> None:
    """Each run fits, none is empty, and together they are all members in order."""
    members = [replace(FILE, path=b"%04d" % i + b"x" * 4000) for i in range(600)]
    runs = list(split_members(members))
    assert len(runs) == 3
    assert [member for run in runs for member in run] == members
    assert all(unpack_members(pack_members(run)) == tuple(run) for run in runs)
    with pytest.raises(ValueError, match="at most"):
        pack_members(members)
    assert list(split_members([])) == []


def test_sizes_must_sum_to_the_content() -> None:
    """The error tells both."""
    check_sizes([FILE, FILE], 10, 0)
    with pytest.raises(FormatError, match="expected members of 11 bytes together, found 10 at offset 3"):
        check_sizes([FILE, FILE], 11, 3)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"a b", "a b"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"\xc3\xa9\xc3", "é\\xc3"),
        (b"a\\x", "a\\\\x"),
        (b"\xe2\x80\xae", "\\xe2\\x80\\xae"),
    ],
)
def test_terminals_see_no_control_characters(path: bytes, text: str) -> None:
    """Escapes, direction marks and bytes that are no UTF-8 are shown as their bytes."""
    assert printable(path) == text


def test_more_members_than_an_archive_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a table, and those of several."""
    monkeypatch.setattr("llmzip.members.MAX_MEMBERS", 3)
    members = [Member(b"%d" % i, Kind.FILE, 0o644, 0) for i in range(4)]
    check_members(members[:3])
    check_count(3)
    with pytest.raises(LimitError, match="at most 3"):
        check_members(members)
    with pytest.raises(LimitError, match="at most 3"):
        unpack_members(pack_members(members))
    with pytest.raises(LimitError, match="at most 3"):
        check_count(4)
