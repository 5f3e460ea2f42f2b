from __future__ import annotations

import os
import pty
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
