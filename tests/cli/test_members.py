from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tree(folder: Path) -> Path:
    """A folder `tree` with two files, a link and an empty folder, all of the same time."""
    root = folder / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"first\n")
    (root / "sub" / "b.txt").write_bytes(b"second, in a folder\n")
    (root / "sub" / "b.txt").chmod(0o640)
    (root / "link").symlink_to("sub/b.txt")
    (root / "empty").mkdir()
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    os.utime(root, ns=(10**18, 10**18))
    return root


def _state(root: Path) -> dict[str, tuple[int, int, object]]:
    """Mode, time, and content or target of everything in a folder, and of the folder itself."""
    found: dict[str, tuple[int, int, object]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_a_folder_comes_back_as_it_was(run: Any, folder: Path, tree: Path) -> None:
    """Contents, modes, times and links, by the default name of the archive."""
    done = run("compress", "tree/")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = run("extract", "tree.llmz", "-C", "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert _state(folder / "out" / "tree") == _state(tree)


@pytest.mark.parametrize(
    "arguments",
    [
        ("tree/a.txt", "tree/sub", "out.llmz"),
        ("-o", "out.llmz", "tree/a.txt", "tree/sub"),
        ("tree/a.txt", "tree/sub", "--output", "out.llmz"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_several_inputs_go_into_one_archive(arguments: tuple[str, ...], run: Any, folder: Path) -> None:
    """The last name is the archive's, unless that is given apart."""
    assert run("compress", *arguments).returncode == 0
    assert run("extract", "out.llmz", "-C", "out").returncode == 0
    assert (folder / "out" / "a.txt").read_bytes() == b"first\n"
    assert (folder / "out" / "sub" / "b.txt").read_bytes() == b"second, in a folder\n"


@pytest.mark.usefixtures("tree")
def test_an_archive_of_files_goes_through_a_pipe(run: Any, folder: Path) -> None:
    """Its content too, one file after the other; listing needs no seeking, extraction does."""
    packed = run("compress", "-c", "tree")
    assert packed.returncode == 0
    assert run("cat", "-", data=packed.stdout).stdout == b"first\nsecond, in a folder\n"
    assert b"tree/sub/b.txt" in run("list", "-", data=packed.stdout).stdout
    (folder / "piped.llmz").write_bytes(packed.stdout)
    assert run("test", "piped.llmz").returncode == 0
    refused = run("extract", "-", data=packed.stdout)
    assert (refused.returncode, refused.stderr) == (50, b"llmzip: -: expected a file, found a pipe\n")


@pytest.mark.usefixtures("tree")
def test_list_shows_members(run: Any) -> None:
    """A line each, as `ls -l` has it, in UTC; all of it for programs."""
    run("compress", "tree")
    lines = run("list", "tree.llmz").stdout.decode().splitlines()[2:]
    assert [line.split("  ", 1)[0] for line in lines if "sub/b.txt" in line] == ["lrwxrwxrwx", "-rw-r-----"]
    assert lines[-1].endswith("20 2001-09-09 01:46:40  tree/sub/b.txt")
    assert any(line.endswith("tree/link -> sub/b.txt") for line in lines)
    (facts,) = json.loads(run("list", "--json", "tree.llmz").stdout)
    assert facts["members"][-1] == {
        "path": "tree/sub/b.txt",
        "kind": "file",
        "mode": "0640",
        "mtime_ns": 10**18,
        "size": 20,
    }
    assert facts["members"][3]["target"] == "sub/b.txt"


@pytest.mark.usefixtures("tree")
def test_some_members_are_extracted(run: Any, folder: Path) -> None:
    """By name, into the working directory."""
    run("compress", "tree")
    (folder / "tree").rename(folder / "before")
    assert run("extract", "tree.llmz", "tree/sub").returncode == 0
    assert sorted(path.name for path in (folder / "tree").rglob("*")) == ["b.txt", "sub"]
    refused = run("extract", "tree.llmz", "tree/none")
    assert refused.returncode == 61
    assert refused.stderr == b"llmzip: tree/none: expected a member of the archive, found none of this name\n"


@pytest.mark.usefixtures("tree")
def test_existing_files_are_kept_without_force(run: Any, folder: Path) -> None:
    """Force overwrites them, and --resume passes over those that are whole."""
    run("compress", "tree")
    assert run("extract", "tree.llmz").returncode == 62
    assert run("extract", "tree.llmz", "--resume").returncode == 0
    (folder / "tree" / "a.txt").write_bytes(b"mine")
    assert run("extract", "tree.llmz", "--resume").returncode == 62
    assert run("extract", "tree.llmz", "-f").returncode == 0
    assert (folder / "tree" / "a.txt").read_bytes() == b"first\n"


@pytest.mark.usefixtures("tree")
def test_the_wrong_command_names_the_right_one(run: Any, folder: Path) -> None:
    """Decompress of files, extract of content without names."""
    run("compress", "tree")
    done = run("decompress", "tree.llmz", "out")
    assert (done.returncode, done.stderr.endswith(b"run: llmzip extract\n")) == (50, True)
    run("compress", "tree/a.txt")
    done = run("extract", "tree/a.txt.llmz")
    assert (done.returncode, done.stderr.endswith(b"run: llmzip decompress\n")) == (50, True)
    assert sorted(path.name for path in folder.iterdir()) == ["tree", "tree.llmz"]


@pytest.mark.usefixtures("tree")
def test_the_archive_is_not_packed_into_itself(run: Any, folder: Path) -> None:
    """Neither the old one, nor the new one while it is written."""
    assert run("compress", ".", "all.llmz").returncode == 0
    assert run("compress", "-f", ".", "all.llmz").returncode == 0
    paths = [member["path"] for member in json.loads(run("list", "--json", "all.llmz").stdout)[0]["members"]]
    assert paths == ["tree", "tree/a.txt", "tree/empty", "tree/link", "tree/sub", "tree/sub/b.txt"]
    assert sorted(path.name for path in folder.iterdir()) == ["all.llmz", "tree"]


@pytest.mark.parametrize("arguments", [("tree/a.txt", "tree/sub", "mine"), ("-o", "tree/a.txt", "tree")])
@pytest.mark.usefixtures("tree")
def test_an_archive_of_files_replaces_nothing_but_an_archive(
    arguments: tuple[str, ...], run: Any, folder: Path
) -> None:
    """Even with force: the last of a list of files is easily taken for the archive."""
    (folder / "mine").write_bytes(b"mine")
    done = run("compress", "-f", *arguments)
    assert done.returncode == 50
    assert b"expected a new name or an archive to replace" in done.stderr
    assert (folder / "mine").read_bytes() == b"mine"
    assert (folder / "tree" / "a.txt").read_bytes() == b"first\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "--rm", "tree"), b"only a single file is removed"),
        (("compress", "-d", "tree", "tree", "out"), b"expected one archive, found 2"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_options_that_make_no_sense_for_several_are_refused(
    arguments: tuple[str, ...], message: bytes, run: Any
) -> None:
    """As a wrong command line."""
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
