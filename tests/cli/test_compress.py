from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmzip.format import scan

_TEXT = b"".join(b"line %d\n" % i for i in range(10_000))


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_compress_and_decompress_give_the_file_back(run: Any, folder: Path) -> None:
    """The default names are IN.llmz and IN, the input stays, permissions and time come along."""
    source = folder / "notes.txt"
    source.write_bytes(_TEXT)
    source.chmod(0o640)
    os.utime(source, ns=(10**18, 10**18))
    done = run("compress", "notes.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert _files(folder) == ["notes.txt", "notes.txt.llmz"]
    source.unlink()
    assert run("decompress", "notes.txt.llmz").returncode == 0
    assert source.read_bytes() == _TEXT
    assert source.stat().st_mode & 0o777 == 0o640
    assert source.stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("args", [("compress",), ("compress", "-"), ("compress", "-", "-"), ("compress", "-c", "-")])
def test_pipes_go_through(run: Any, args: tuple[str, ...]) -> None:
    """Without names, or with -, the data go from standard input to standard output; -d turns round."""
    packed = run(*args, data=_TEXT)
    assert packed.returncode == 0
    assert run("compress", "-d", data=packed.stdout).stdout == _TEXT
    assert run("decompress", data=packed.stdout).stdout == _TEXT


def test_any_name_is_accepted_for_the_output(run: Any, folder: Path) -> None:
    """A given OUT is taken as it is."""
    (folder / "enwik8").write_bytes(_TEXT)
    assert run("compress", "enwik8", "out.lz").returncode == 0
    assert run("decompress", "out.lz", "back").returncode == 0
    assert (folder / "back").read_bytes() == _TEXT


def test_rm_removes_the_input_after_success(run: Any, folder: Path) -> None:
    """The source goes with --rm, and stays with -k or -c."""
    (folder / "a").write_bytes(_TEXT)
    assert run("compress", "-c", "--rm", "a").returncode == 0
    assert _files(folder) == ["a"]
    assert run("compress", "--rm", "-k", "a", "b").returncode == 0
    assert _files(folder) == ["a", "b"]
    assert run("compress", "--rm", "a").returncode == 0
    assert _files(folder) == ["a.llmz", "b"]


def test_an_existing_target_is_kept_without_force(run: Any, folder: Path) -> None:
    """The refusal has its exit code and one line; -f overwrites."""
    (folder / "a").write_bytes(_TEXT)
    (folder / "a.llmz").write_bytes(b"mine")
    done = run("compress", "a")
    assert (done.returncode, done.stderr) == (62, b"llmzip: a.llmz: exists already; use -f to overwrite\n")
    assert (folder / "a.llmz").read_bytes() == b"mine"
    assert run("compress", "-f", "a").returncode == 0
    assert run("decompress", "-c", "a.llmz").stdout == _TEXT


def test_the_input_is_never_its_own_output(run: Any, folder: Path) -> None:
    """Neither force nor a link makes a file its own target."""
    (folder / "a").write_bytes(_TEXT)
    (folder / "link").symlink_to("a")
    assert run("compress", "-f", "--rm", "a", "link").returncode == 50
    assert (folder / "a").read_bytes() == _TEXT


def test_a_full_disk_leaves_nothing(run: Any, folder: Path) -> None:
    """The target is as it was, no part stays beside it, and the exit code tells the disk."""
    (folder / "a").write_bytes(_TEXT)
    (folder / "b").write_bytes(b"mine")
    done = run("compress", "-f", "a", "b", LLMZIP_FAULT="full")
    assert (done.returncode, done.stderr) == (65, b"llmzip: No space left on device\n")
    assert _files(folder) == ["a", "b"]
    assert (folder / "b").read_bytes() == b"mine"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing(command: list[str], folder: Path, number: int, code: int) -> None:
    """Ctrl-C and a request to end remove the part and have their own exit codes."""
    (folder / "a").write_bytes(_TEXT)
    # A shell lets its background jobs ignore Ctrl-C, and they would hand that on to the program.
    before = signal.signal(number, signal.SIG_DFL)
    process = subprocess.Popen(
        [*command, "compress", "a"], env={**os.environ, "LLMZIP_FAULT": "sleep"}, stderr=subprocess.PIPE
    )
    signal.signal(number, before)
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"asleep\n"
        assert _files(folder) == [".a.llmz.llmzip-journal", ".a.llmz.llmzip-part", "a"]
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    assert _files(folder) == ["a"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        pytest.param(("compress", "none"), 61, b"llmzip: none: No such file or directory\n", id="missing"),
        pytest.param(("decompress", ".", "b"), 63, b"llmzip: .: expected a file, found a directory\n", id="directory"),
        pytest.param(("compress", "."), 50, b"llmzip: .: expected a name to add .llmz to", id="folder-without-a-name"),
        pytest.param(
            ("compress", "a", "."), 63, b"llmzip: .: expected a file, found a directory\n", id="into-directory"
        ),
        pytest.param(("compress", "a", "no/b"), 61, b"llmzip: ", id="no-folder"),
        pytest.param(("compress", "a/b"), 63, b"llmzip: a/b: Not a directory\n", id="file-as-folder"),
        pytest.param(("compress", "--window", "7", "a"), 2, b"Usage: ", id="window"),
        pytest.param(("compress", "--chunk-size", "2M", "a"), 2, b"Usage: ", id="chunk-size"),
        pytest.param(("compress", "--chunk-size", "x", "a"), 2, b"Usage: ", id="not-a-size"),
    ],
)
def test_refusals_have_their_exit_codes(
    run: Any, folder: Path, args: tuple[str, ...], code: int, message: bytes
) -> None:
    """What cannot be read, written or understood is told in one line and by the exit code."""
    (folder / "a").write_bytes(_TEXT)
    done = run(*args)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert b"Traceback" not in done.stderr
    assert _files(folder) == ["a"]


def test_the_chunk_size_reaches_the_archive(run: Any, folder: Path) -> None:
    """Sizes may be given in K and M."""
    (folder / "a").write_bytes(bytes(10_000))
    assert run("compress", "--chunk-size", "1K", "a").returncode == 0
    with (folder / "a.llmz").open("rb") as file:
        (frame,) = scan(file)
    assert sum(total.n_chunks for total in frame.methods.values()) == 10


def test_a_device_is_written_without_a_rename(run: Any, folder: Path) -> None:
    """/dev/null stays a device."""
    (folder / "a").write_bytes(_TEXT)
    assert run("compress", "a", os.devnull).returncode == 0
    assert not Path(os.devnull).is_file()


def test_verbose_says_the_sizes(run: Any, folder: Path) -> None:
    """-v ends with one line on standard error."""
    (folder / "a").write_bytes(bytes(1000))
    done = run("compress", "-v", "a")
    assert done.stderr.startswith(b"a: 1000 raw bytes, 1021 in the archive (102.10%), ")
    assert done.stderr.count(b"\n") == 1
