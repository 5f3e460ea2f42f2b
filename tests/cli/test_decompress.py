from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

_TEXT = b"some text\n" * 100


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param(lambda blob: b"plain text" + blob, 11, id="foreign"),
        pytest.param(lambda blob: blob[:-5], 13, id="truncated"),
        pytest.param(lambda blob: blob[:-5] + b"wrong", 14, id="damaged"),
        pytest.param(lambda blob: blob + b"more", 10, id="trailing"),
        pytest.param(lambda blob: blob[:0], 13, id="empty"),
    ],
)
def test_damage_writes_nothing_and_exits_with_its_code(run: Any, folder: Path, damage: Any, code: int) -> None:
    """A refused archive leaves no file, and the error is one line."""
    blob = damage(run("compress", data=_TEXT).stdout)
    (folder / "a.llmz").write_bytes(blob)
    done = run("decompress", "a.llmz")
    assert done.returncode == code
    assert done.stderr.startswith(b"llmzip: ")
    assert done.stderr.count(b"\n") == 1
    assert [path.name for path in folder.iterdir()] == ["a.llmz"]


def test_an_unknown_suffix_needs_a_name_for_the_output(run: Any, folder: Path) -> None:
    """Without .llmz there is no name to derive."""
    (folder / "a.lz").write_bytes(run("compress", data=_TEXT).stdout)
    done = run("decompress", "a.lz")
    assert done.returncode == 50
    assert b"say where to write" in done.stderr


def test_concatenated_archives_give_concatenated_content(run: Any) -> None:
    """Archives can be joined like gzip's."""
    packed = run("compress", data=_TEXT).stdout
    assert run("decompress", data=packed + packed).stdout == _TEXT + _TEXT


def test_a_reader_that_goes_away_is_no_traceback(command: list[str], folder: Path) -> None:
    """`llmzip cat a.llmz | head` ends quietly."""
    text = b"some text\n" * 200_000
    (folder / "a").write_bytes(text)
    subprocess.run([*command, "compress", "a"], check=True)
    with subprocess.Popen([*command, "cat", "a.llmz"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 1


def test_binary_data_stay_off_a_terminal(command: list[str], folder: Path) -> None:
    """Compress to a terminal is refused, as is an archive typed in."""
    (folder / "a").write_bytes(_TEXT)
    outer, inner = pty.openpty()
    to_terminal = subprocess.run([*command, "compress", "-c", "a"], stdout=inner, stderr=subprocess.PIPE, check=False)
    from_terminal = subprocess.run([*command, "decompress", "-"], stdin=inner, capture_output=True, check=False)
    no_input = subprocess.run([*command, "compress"], stdin=inner, capture_output=True, check=False)
    os.close(inner)
    os.close(outer)
    assert (to_terminal.returncode, from_terminal.returncode, no_input.returncode) == (66, 66, 2)


def test_progress_is_shown_on_a_terminal_only(command: list[str], folder: Path) -> None:
    """A bar with the ratio goes to standard error if that is a terminal, unless -q."""
    (folder / "a").write_bytes(_TEXT * 1000)
    shown = []
    for option in ("-f", "-fq"):
        outer, inner = pty.openpty()
        termios.tcsetwinsize(inner, (24, 80))
        subprocess.run([*command, "compress", option, "a"], stderr=inner, check=True)
        os.write(inner, b"end")
        seen = b""
        while not seen.endswith(b"end"):
            seen += os.read(outer, 65536)
        shown.append(seen)
        os.close(inner)
        os.close(outer)
    assert b"a: " in shown[0]
    assert shown[1] == b"end"


def _damaged(run: Any, folder: Path) -> bytes:
    """An archive `a.llmz` of four chunks, the third damaged; the content."""
    text = b"".join(b"line %d of many\n" % i for i in range(6000))
    (folder / "a").write_bytes(text)
    assert run("compress", "a", "--chunk-size", "32K").returncode == 0
    archive = bytearray((folder / "a.llmz").read_bytes())
    archive[70_000] ^= 1
    (folder / "a.llmz").write_bytes(archive)
    return text


def test_salvage_writes_what_is_left_and_tells_what_is_lost(run: Any, folder: Path) -> None:
    """With an exit code of its own; without damage it is decompress."""
    text = _damaged(run, folder)
    assert run("decompress", "a.llmz", "whole").returncode == 14
    done = run("decompress", "--salvage", "--rm", "a.llmz", "rest")
    lost, told = done.stderr.decode().splitlines()
    start, stop = map(int, re.findall(r"\d+", lost)[:2])
    assert lost.startswith(f"a.llmz: lost: bytes {start} to {stop} of the content, if the damaged chunk is right about")
    assert "chunk check: stored" in lost
    assert (done.returncode, told) == (16, "llmzip: a.llmz: content was lost in 1 places; what is left is in rest")
    assert (folder / "rest").read_bytes() == text[:start] + text[stop + 1 :]
    assert 60_000 < start < stop < 100_000
    assert (folder / "a.llmz").exists()
    assert not (folder / "whole").exists()
    assert run("compress", "rest").returncode == 0
    assert run("decompress", "--salvage", "rest.llmz", "again").returncode == 0
    assert (folder / "again").read_bytes() == (folder / "rest").read_bytes()


def test_salvage_needs_a_file(run: Any, folder: Path) -> None:
    """A pipe cannot be searched from its end."""
    _damaged(run, folder)
    done = run("decompress", "--salvage", data=(folder / "a.llmz").read_bytes())
    assert (done.returncode, done.stderr) == (50, b"llmzip: --salvage: expected a file, found a pipe\n")


@pytest.mark.parametrize("cut", [3, 40_000])
def test_salvage_on_a_terminal(cut: int, run: Any, command: list[str], folder: Path) -> None:
    """Where progress is shown, whose length a damaged archive does not tell."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    text = _damaged(run, folder)
    archive = (folder / "a.llmz").read_bytes()
    (folder / "a.llmz").write_bytes(archive[:-cut])
    terminal, ours = pty.openpty()
    arguments = [*command, "decompress", "--salvage", "a.llmz", "rest"]
    done = subprocess.run(arguments, cwd=folder, stderr=ours, timeout=60, check=False)
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 16
    assert text.startswith((folder / "rest").read_bytes()[:60_000])
    assert (folder / "rest").stat().st_size >= 32_768
