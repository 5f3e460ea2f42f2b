from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmzip.archive import decompress, verify_stream
from llmzip.contents import find_members, read_contents, select
from llmzip.encoding import StreamCompressor
from llmzip.errors import (
    ChecksumError,
    ConfigError,
    FileExistsRefusedError,
    FileMissingError,
    FormatError,
    LimitError,
    LlmzipError,
)
from llmzip.extraction import Extractor, _part_name, check_windows_path, leads_out
from llmzip.format import FrameWriter, Header, Method, Sections
from llmzip.members import Kind, Member, pack_members
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.own_file import open_own

pytestmark = pytest.mark.usefixtures("tiny_model")

DECODE = DecompressOptions(model="tiny", threads=1)
FOLDER = Member(b"d", Kind.FOLDER, 0o750, 10**18)
FILE = Member(b"d/f", Kind.FILE, 0o640, 10**18 + 1, 3)
LINK = Member(b"d/l", Kind.LINK, 0o777, 10**18 + 2, target=b"f")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder beside which lies a file that must never change."""
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path) -> Iterator[None]:
    """No test makes anything beside the folder that it extracts to."""
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"kept", "out"}
    assert not (tmp_path / "kept").exists() or (tmp_path / "kept").read_bytes() == b"kept"


def _pack(members: Sequence[Member], content: bytes) -> bytes:
    """A frame of any members that a table can hold, safe or not."""
    target = io.BytesIO()
    sections = Sections(pack_members(members))
    with StreamCompressor(target, CompressOptions(model="tiny", threads=1), sections=sections) as compressor:
        compressor.write(content)
        compressor.finish()
    return target.getvalue()


def _extract(archive: bytes, out: Path, names: Sequence[bytes] = (), **options: bool) -> None:
    file = io.BytesIO(archive)
    Extractor(str(out), **options).extract(file, select(find_members(file), names), DECODE)


def _before_reading(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something happen when everything was checked, and nothing is decoded yet."""

    def _read(*arguments: Any) -> Any:
        action()
        return read_contents(*arguments)

    monkeypatch.setattr("llmzip.extraction.read_contents", _read)


def test_members_come_back(out: Path) -> None:
    """Content, modes, and times of files, folders and links; folders that are no members are made."""
    other = Member(b"x/y/z", Kind.FILE, 0o444, -1, 2)
    _extract(_pack([FOLDER, FILE, LINK, other], b"abcde"), out)
    assert (out / "d" / "f").read_bytes() == b"abc"
    assert (out / "x" / "y" / "z").read_bytes() == b"de"
    assert (out / "d" / "l").readlink() == Path("f")
    for name, mode, mtime in (("d", 0o750, 10**18), ("d/f", 0o640, 10**18 + 1), ("x/y/z", 0o444, -1)):
        status = (out / name).stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (mode, mtime), name
    assert (out / "d" / "l").lstat().st_mtime_ns == 10**18 + 2


def test_folder_that_may_not_be_written_is_filled_first(out: Path) -> None:
    """Its mode is set when all that is in it is there."""
    _extract(_pack([Member(b"d", Kind.FOLDER, 0o500, 5), FILE], b"abc"), out)
    assert ((out / "d").stat().st_mode & 0o777, (out / "d").stat().st_mtime_ns) == (0o500, 5)
    (out / "d").chmod(0o700)


def test_rights_of_the_owner_are_not_lent(out: Path) -> None:
    """A program that ran as somebody else does not after extraction."""
    _extract(_pack([Member(b"f", Kind.FILE, 0o6755, 0, 1)], b"x"), out)
    assert (out / "f").stat().st_mode & 0o7777 == 0o755


def test_only_the_wanted_members_are_made(out: Path) -> None:
    """A file by its name, a folder with all that is in it."""
    members = [FOLDER, FILE, Member(b"d/e/g", Kind.FILE, 0o600, 0, 2), Member(b"de", Kind.FILE, 0o600, 0, 1)]
    archive = _pack(members, b"abcdef")
    _extract(archive, out, [b"d/e/"])
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["d", "d/e", "d/e/g"]
    _extract(archive, out, [b"de"])
    assert (out / "de").read_bytes() == b"f"
    with pytest.raises(FileMissingError, match="g: expected a member"):
        _extract(archive, out, [b"de", b"g"])


def test_more_than_is_allowed_is_not_made(out: Path) -> None:
    """The sizes of all wanted members say so before any of them is made; those of the others do not count."""
    members = [Member(b"%d" % i, Kind.FILE, 0o644, 0, 10) for i in range(3)]
    file = io.BytesIO(_pack(members, b"a text of ten and ten and ten."))
    places = find_members(file)
    with pytest.raises(LimitError, match="at most 29 allowed, found 30"):
        Extractor(str(out)).extract(file, places, replace(DECODE, max_size=29))
    assert not list(out.iterdir())
    Extractor(str(out)).extract(file, places[:2], replace(DECODE, max_size=29))
    assert sorted(path.name for path in out.iterdir()) == ["0", "1"]


def test_wanted_members_decode_their_chunks_only(
    out: Path, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of many in the middle of an archive takes the chunks that hold it."""
    members = [Member(b"%02d" % i, Kind.FILE, 0o600, 0, 100) for i in range(60)]
    target = io.BytesIO()
    chosen = CompressOptions(model="tiny", threads=1, chunk_size=500)
    with StreamCompressor(target, chosen, sections=Sections(pack_members(members))) as compressor:
        compressor.write(sample_text[:6000])
        compressor.finish()
    decoded: list[int] = []
    verify = "llmzip.format.chunk_record.ChunkRecord.verify"
    monkeypatch.setattr(verify, lambda record, *_rest: decoded.append(record.raw_length))
    _extract(target.getvalue(), out, [b"31", b"33"])
    assert (out / "31").read_bytes() == sample_text[3100:3200]
    assert (out / "33").read_bytes() == sample_text[3300:3400]
    assert sum(decoded) <= 4 * 500


@pytest.mark.parametrize("options", [{}, {"force": True}])
def test_a_file_in_the_way_stays_unless_forced(options: dict[str, bool], out: Path) -> None:
    """Before anything is written, and without a trace."""
    archive = _pack([Member(b"a", Kind.FILE, 0o600, 0, 1), Member(b"b", Kind.FILE, 0o600, 0, 1)], b"xy")
    (out / "b").write_bytes(b"mine")
    if options:
        _extract(archive, out, (), **options)
        assert (out / "b").read_bytes() == b"y"
        return
    with pytest.raises(FileExistsRefusedError, match="b: exists already"):
        _extract(archive, out)
    assert [path.name for path in out.iterdir()] == ["b"]
    assert (out / "b").read_bytes() == b"mine"


def test_resume_keeps_what_is_whole(out: Path) -> None:
    """By size and time; what differs needs force."""
    archive = _pack([FOLDER, FILE, LINK], b"abc")
    _extract(archive, out)
    (out / "d" / "f").write_bytes(b"ABC")
    os.utime(out / "d" / "f", ns=(0, FILE.mtime_ns))
    _extract(archive, out, resume=True)
    assert (out / "d" / "f").read_bytes() == b"ABC"
    (out / "d" / "f").write_bytes(b"ABC")
    with pytest.raises(FileExistsRefusedError):
        _extract(archive, out, resume=True)
    _extract(archive, out, resume=True, force=True)
    assert (out / "d" / "f").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("path", "target", "out_of_it"),
    [
        (b"l", b"f", False),
        (b"l", b"./a//f", False),
        (b"d/e/l", b".././../f", False),
        (b"l", b"./a/../f", True),
        (b"d/z", b"s/../f", True),
        (b"d/l", b"../f", False),
        (b"d/l", b"..", False),
        (b"l", b"..", True),
        (b"l", b"/etc/passwd", True),
        (b"d/l", b"../../f", True),
        (b"d/l", b"a/../../../f", True),
        (b"l", b"C:\\x", True),
        (b"l", b"c:x", True),
    ],
)
def test_links_that_lead_out_are_refused(path: bytes, target: bytes, out_of_it: bool, out: Path) -> None:
    """Before anything is made, unless they are asked for."""
    link = Member(path, Kind.LINK, 0o777, 0, target=target)
    assert leads_out(link) == out_of_it
    archive = _pack([Member(b"a", Kind.FILE, 0o600, 0, 1), link], b"x")
    if out_of_it:
        with pytest.raises(FormatError, match="expected a link within the folder"):
            _extract(archive, out)
        assert list(out.iterdir()) == []
    _extract(archive, out, any_links=True)
    assert (out / os.fsdecode(path)).readlink() == Path(os.fsdecode(target))


def test_files_that_appear_meanwhile_are_kept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding may take hours; only force replaces what somebody has written since it began."""
    archive = _pack([Member(b"f", Kind.FILE, 0o600, 0, 3)], b"new")

    _before_reading(lambda: (out / "f").write_bytes(b"mine"), monkeypatch)
    with pytest.raises(FileExistsRefusedError, match="f: exists already"):
        _extract(archive, out)
    assert (out / "f").read_bytes() == b"mine"
    assert [path.name for path in out.iterdir()] == ["f"]
    _extract(archive, out, force=True)
    assert (out / "f").read_bytes() == b"new"


def test_two_at_once_do_not_share_an_unfinished_file(out: Path) -> None:
    """The second one is refused, and the first one's file is whole."""
    archive = _pack([Member(b"f", Kind.FILE, 0o600, 0, 3)], b"new")
    with open_own(_part_name(out / "f"), out / "f") as file:
        file.write(b"ne")
        with pytest.raises(FileExistsRefusedError, match="another llmzip is writing it"):
            _extract(archive, out)
        assert not (out / "f").exists()
    _extract(archive, out)
    assert (out / "f").read_bytes() == b"new"


def test_folder_is_private_until_it_is_whole(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads a private folder's files while they are extracted."""
    modes: list[int] = []
    _before_reading(lambda: modes.append((out / "d").stat().st_mode & 0o777), monkeypatch)
    _extract(_pack([FOLDER, FILE], b"abc"), out)
    assert modes == [0o700]
    assert (out / "d").stat().st_mode & 0o777 == 0o750


def test_names_of_unfinished_files_are_refused(out: Path) -> None:
    """A member of such a name could be taken for one, and removed."""
    name = os.fsencode(_part_name(out / "x").name)
    with pytest.raises(FormatError, match="other names than those of unfinished files"):
        _extract(_pack([Member(name, Kind.FILE, 0o600, 0, 1)], b"x"), out)


def test_chunks_in_another_order_are_refused(out: Path) -> None:
    """Each fits its own check; the digest of the whole tells."""
    raws = [b"first", b"other", b"third"]
    target = io.BytesIO()
    members = [Member(b"f", Kind.FILE, 0o600, 0, 15)]
    writer = FrameWriter(target, Header(), Sections(pack_members(members)))
    for raw in raws:
        writer.write_chunk(Method.STORED, raw, raw)
    writer.finish()
    archive = target.getvalue()
    _extract(archive, out)
    chunks = [archive[archive.index(raw) - 4 : archive.index(raw) + 5] for raw in raws]
    swapped = archive.replace(chunks[0] + chunks[1], chunks[1] + chunks[0])
    assert len(swapped) == len(archive)
    with pytest.raises(ChecksumError, match="content digest"):
        _extract(swapped, out, force=True)


def test_no_link_is_followed_on_the_way(out: Path, tmp_path: Path) -> None:
    """A link that lies in the folder already leads nothing out of it; neither does one of the archive."""
    (out / "d").symlink_to(tmp_path)
    archive = _pack([Member(b"d/kept", Kind.FILE, 0o600, 0, 3)], b"new")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(FileExistsRefusedError, match="expected a folder or nothing, found a file or link"):
            _extract(archive, out, (), **options)
    link = Member(b"d", Kind.LINK, 0o777, 0, target=b"..")
    with pytest.raises(FormatError, match="expected d to be a folder, found d/kept below it"):
        find_members(io.BytesIO(_pack([link], b"") + archive))


def test_link_at_a_files_place_is_replaced_not_followed(out: Path, tmp_path: Path) -> None:
    """With force; what it points to stays as it is."""
    (out / "f").symlink_to(tmp_path / "kept")
    _extract(_pack([Member(b"f", Kind.FILE, 0o600, 0, 3)], b"new"), out, force=True)
    assert not (out / "f").is_symlink()
    assert (out / "f").read_bytes() == b"new"


def test_folder_at_a_files_place_is_refused(out: Path) -> None:
    """Force replaces files and links, no folders; a file in a folder's place is refused too."""
    (out / "f").mkdir()
    with pytest.raises(FileExistsRefusedError, match="expected a file or nothing, found a folder"):
        _extract(_pack([Member(b"f", Kind.FILE, 0o600, 0, 0)], b""), out, force=True)
    (out / "d").touch()
    with pytest.raises(FileExistsRefusedError, match="expected a folder or nothing"):
        _extract(_pack([FOLDER], b""), out, force=True)


def test_damage_leaves_whole_files_only(out: Path, sample_text: bytes) -> None:
    """What was decoded before it stays, of the damaged file there is nothing."""
    members = [Member(b"a", Kind.FILE, 0o600, 0, 600), Member(b"b", Kind.FILE, 0o600, 0, 600)]
    target = io.BytesIO()
    chosen = CompressOptions(model="tiny", threads=1, chunk_size=600)
    with StreamCompressor(target, chosen, sections=Sections(pack_members(members))) as compressor:
        compressor.write(b"\n" * 599 + b"x")
        compressor.write(sample_text[:600])
        compressor.finish()
    damaged = bytearray(target.getvalue())
    damaged[-40] ^= 1
    with pytest.raises(LlmzipError):
        _extract(bytes(damaged), out)
    assert [path.name for path in out.iterdir()] in ([], ["a"])


@pytest.mark.parametrize(
    ("members", "content", "message"),
    [
        ([Member(b"a", Kind.FILE, 0, 0, 3)], b"ab", "expected members of 2 bytes together, found 3"),
        ([Member(b"a", Kind.FILE, 0, 0, 1)], b"ab", "expected members of 2 bytes together, found 1"),
        ([Member(b"a", Kind.FILE, 0, 0, 2**62)] * 1, b"ab", "expected members of 2 bytes together"),
    ],
)
def test_sizes_that_are_not_the_contents_are_refused(
    members: list[Member], content: bytes, message: str, out: Path
) -> None:
    """By the reader of the table, and by one that decodes all."""
    archive = _pack(members, content)
    with pytest.raises(FormatError, match=message):
        _extract(archive, out)
    with pytest.raises(FormatError, match=message):
        decompress(archive, DECODE)


def test_same_path_in_two_frames_is_refused(out: Path) -> None:
    """Archives of the same files, one after the other; by every reader that reaches the end."""
    archive = _pack([FOLDER, FILE], b"abc")
    with pytest.raises(FormatError, match="expected each path once, found d again"):
        _extract(archive * 2, out)
    with pytest.raises(FormatError, match="expected each path once, found d again"):
        decompress(archive * 2, DECODE)
    with pytest.raises(FormatError, match="expected each path once, found d again"):
        list(verify_stream(io.BytesIO(archive * 2), DECODE))


def test_content_without_names_is_refused(out: Path) -> None:
    """With the command that is right for it; also behind a frame of files."""
    from llmzip.archive import compress

    plain = compress(b"text", CompressOptions(model="tiny"))
    for archive in (plain, _pack([FILE], b"abc") + plain):
        with pytest.raises(ConfigError, match="run: llmzip decompress"):
            _extract(archive, out)


@pytest.mark.parametrize(
    "path",
    [b"C:/x", b"a:b", b"a\\b", b"nul", b"NUL.txt", b"a/con", b"Com1 .x", b"lpt9", b"a.", b"a ", b"a?", b"a*", b"a\x01"],
)
def test_names_that_windows_takes_for_something_else(path: bytes) -> None:
    """Drives, streams, devices, separators, and what it would cut off."""
    with pytest.raises(FormatError, match="expected names that Windows allows"):
        check_windows_path(path)


@pytest.mark.parametrize("path", [b"a/b.c", b"console", b"nul1", b".a", b"caf\xc3\xa9", b"a b"])
def test_names_that_windows_allows(path: bytes) -> None:
    """Ordinary ones."""
    check_windows_path(path)
