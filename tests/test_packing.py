from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from llmzip.archive import decompress
from llmzip.contents import find_members
from llmzip.errors import ConfigError, FileError, FileMissingError
from llmzip.format import scan
from llmzip.members import Kind, Member
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.packing import Packer

pytestmark = pytest.mark.usefixtures("tiny_model")

OPTIONS = CompressOptions(model="tiny", threads=1)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `tree` with files, a folder and links, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tree"
    (folder / "b").mkdir(parents=True)
    (folder / "b.txt").write_bytes(b"beside the folder")
    (folder / "b" / "a.txt").write_bytes(b"in the folder")
    (folder / "empty").touch()
    (folder / "link").symlink_to("b/a.txt")
    (folder / "nowhere").symlink_to("../not there")
    return folder


def _write(packer: Packer) -> bytes:
    target = io.BytesIO()
    packer.write(target, OPTIONS)
    return target.getvalue()


def test_everything_below_a_folder_is_packed(tree: Path) -> None:
    """A folder before what is in it, by name; links as links, with modes and times."""
    (tree / "b.txt").chmod(0o4751)
    os.utime(tree / "b.txt", ns=(1, -5))
    packer = Packer(["tree"])
    assert [(member.path, member.kind) for member in packer.members] == [
        (b"tree", Kind.FOLDER),
        (b"tree/b", Kind.FOLDER),
        (b"tree/b/a.txt", Kind.FILE),
        (b"tree/b.txt", Kind.FILE),
        (b"tree/empty", Kind.FILE),
        (b"tree/link", Kind.LINK),
        (b"tree/nowhere", Kind.LINK),
    ]
    assert packer.members[3] == Member(b"tree/b.txt", Kind.FILE, 0o4751, -5, 17)
    assert packer.members[5].target == b"b/a.txt"
    archive = _write(packer)
    assert [place.member for place in find_members(io.BytesIO(archive))] == packer.members
    assert decompress(archive, DecompressOptions(model="tiny")) == b"in the folderbeside the folder"


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(("path", "first"), [("tree/", b"tree"), ("./tree", b"tree"), ("tree/b/../b", b"b")])
def test_a_path_goes_under_its_last_name(path: str, first: bytes) -> None:
    """Wherever it lies."""
    assert Packer([path]).members[0].path == first


@pytest.mark.parametrize("path", [".", "..", "../tree/.."])
def test_of_a_folder_without_a_name_its_content_is_packed(
    path: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its entries alone."""
    monkeypatch.chdir(tree / "b" if path == ".." else tree)
    paths = [member.path for member in Packer([path]).members]
    assert b"b/a.txt" in paths or b"tree/b/a.txt" in paths
    assert not any(name in (b".", b"..", b"") for path in paths for name in path.split(b"/"))


def test_names_that_are_no_utf_8_are_kept(tree: Path) -> None:
    """As the bytes that they are."""
    (tree / os.fsdecode(b"n\xff\n")).touch()
    assert b"tree/n\xff\n" in [member.path for member in Packer(["tree"]).members]


def test_the_archive_itself_is_left_out(tree: Path) -> None:
    """Also through another name of its folder."""
    (tree / "out.llmz").write_bytes(b"old")
    packer = Packer(["tree"], leave_out=["tree/b/../out.llmz"])
    assert b"tree/out.llmz" not in [member.path for member in packer.members]


def test_links_that_lead_nowhere_or_round_are_packed(tree: Path) -> None:
    """As what they are; also one that points to the archive itself."""
    (tree / "loop").symlink_to("loop")
    (tree / "latest").symlink_to("../out.llmz")
    members = {member.path: member for member in Packer(["tree"], leave_out=["out.llmz"]).members}
    assert members[b"tree/loop"].target == b"loop"
    assert members[b"tree/latest"].target == b"../out.llmz"


@pytest.mark.parametrize("year", [1800, 2200])
def test_times_beyond_the_format_are_its_last(year: int, tree: Path) -> None:
    """A file is not refused for them."""
    seconds = (year - 1970) * 365 * 86400
    os.utime(tree / "empty", ns=(seconds * 10**9, seconds * 10**9))
    found = {member.path: member.mtime_ns for member in Packer(["tree"]).members}
    # The file system has limits of its own.
    assert found[b"tree/empty"] == max(1 - 2**62, min(2**62 - 1, (tree / "empty").stat().st_mtime_ns))
    _write(Packer(["tree"]))


def test_what_is_no_file_is_left_out_and_told(tree: Path) -> None:
    """A socket, a pipe."""
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("tree/so")
        told: list[str] = []
        packer = Packer(["tree"], warn=told.append)
    assert [line.partition(":")[0] for line in told] == ["tree/pipe", "tree/so"]
    assert not {b"tree/pipe", b"tree/so"} & {member.path for member in packer.members}


def test_inputs_of_the_same_name_are_refused(tree: Path) -> None:
    """For one would hide the other."""
    (tree / "b" / "tree").touch()
    with pytest.raises(ConfigError, match="expected each path once, found tree again"):
        Packer(["tree", "tree/b/tree"])


@pytest.mark.usefixtures("tree")
def test_missing_input_is_refused() -> None:
    """Before anything is written."""
    with pytest.raises(FileNotFoundError):
        Packer(["tree", "tree/none"])


@pytest.mark.parametrize("change", [b"", b"longer than it was before"])
def test_file_that_changes_meanwhile(change: bytes, tree: Path) -> None:
    """One that has become shorter is an error that names it; of a longer one, its first bytes are packed."""
    packer = Packer(["tree/b"])
    (tree / "b" / "a.txt").write_bytes(change)
    if change:
        assert decompress(_write(packer), DecompressOptions(model="tiny")) == change[:13]
    else:
        with pytest.raises(FileError, match=r"tree/b/a.txt: changed while it was read: expected 13 bytes, found 0"):
            _write(packer)


def test_file_that_becomes_a_link_meanwhile_is_refused(tree: Path, tmp_path: Path) -> None:
    """Nobody can have another file packed by putting a link in place of one."""
    packer = Packer(["tree/b"])
    (tmp_path / "secret").write_bytes(b"thirteen byte")
    (tree / "b" / "a.txt").unlink()
    (tree / "b" / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"a\.txt"):
        _write(packer)


@pytest.mark.usefixtures("tree")
def test_long_tables_make_several_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another; the archive reads as one."""
    monkeypatch.setattr("llmzip.members.MAX_TABLE_LENGTH", 60)
    packer = Packer(["tree"])
    archive = _write(packer)
    assert len(list(scan(io.BytesIO(archive)))) > 2
    assert [place.member for place in find_members(io.BytesIO(archive))] == packer.members
    assert decompress(archive, DecompressOptions(model="tiny")) == b"in the folderbeside the folder"


def test_nothing_gives_an_archive_without_members() -> None:
    """As of an empty folder without a name."""
    assert find_members(io.BytesIO(_write(Packer([])))) == []


@pytest.mark.usefixtures("tree")
def test_progress_goes_on_from_frame_to_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with all bytes of content and of the archive."""
    monkeypatch.setattr("llmzip.members.MAX_TABLE_LENGTH", 60)
    told: list[tuple[int, int]] = []
    target = io.BytesIO()
    Packer(["tree"]).write(target, OPTIONS, lambda *lengths: told.append(lengths))
    assert told[-1] == (30, len(target.getvalue()))
    assert [n_raw for n_raw, _ in told] == sorted(n_raw for n_raw, _ in told)


def test_unreadable_file_is_named(tree: Path) -> None:
    """What the system refuses stops the work."""
    packer = Packer(["tree"])
    (tree / "b" / "a.txt").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        _write(packer)
    assert isinstance(FileError.from_os_error(caught.value), FileMissingError)
    assert str(FileError.from_os_error(caught.value)).startswith("tree/b/a.txt: ")
