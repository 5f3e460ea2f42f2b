from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmzip.bench.commands import known_programs, parse_command, run_command
from llmzip.errors import ConfigError, WorkerError

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("text", "name", "compress", "decompress"),
    [
        ("gzip -9 ; gzip -d", "gzip -9", ("gzip", "-9"), ("gzip", "-d")),
        ("g=gzip -9;gzip -d", "g", ("gzip", "-9"), ("gzip", "-d")),
        ("zip {in} {out} ; unzip {in} {out}", "zip", ("zip", "{in}", "{out}"), ("unzip", "{in}", "{out}")),
        ("zip --as=x {in} ; cat", "zip --as=x", ("zip", "--as=x", "{in}"), ("cat",)),
        ("a 'b c' # ; d", "a 'b c' '#'", ("a", "b c", "#"), ("d",)),
    ],
)
def test_command_lines_have_two_parts(
    text: str, name: str, compress: tuple[str, ...], decompress: tuple[str, ...]
) -> None:
    """A name if there is one, then the words of both ways."""
    assert parse_command(text) == (name, compress, decompress)


@pytest.mark.parametrize("text", ["gzip -9", "gzip ;", "; gzip", "a ; b ; c", ";", "a 'b ; c"])
def test_other_command_lines_are_refused(text: str) -> None:
    """One way alone, three, or an open quotation mark: the error names the line."""
    with pytest.raises(ConfigError, match="expected"):
        parse_command(text)


@pytest.mark.parametrize(
    "script",
    [
        ("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])",),
        ("import sys; open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read()[::-1])", "{in}", "{out}"),
        ("import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read()[::-1])", "{in}"),
    ],
    ids=["pipes", "names", "mixed"],
)
def test_command_goes_from_file_to_file(script: tuple[str, ...], tmp_path: Path) -> None:
    """What has no place in the command line comes in and goes out through pipes."""
    (tmp_path / "raw").write_bytes(b"abc\0\n")
    run_command([PYTHON, "-c", *script], tmp_path / "raw", tmp_path / "packed")
    assert (tmp_path / "packed").read_bytes() == b"\n\0cba"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([PYTHON, "-c", "import sys; sys.exit('no\\nmemory\\n')"], "expected exit status 0, found 1: memory"),
        ([PYTHON, "-c", "pass", "{out}"], "expected its output in {out}, found none"),
        (["no-such-program"], "no-such-program: expected a program that starts, found: No such file"),
    ],
    ids=["status", "nothing", "absent"],
)
def test_command_that_fails_says_why(words: list[str], message: str, tmp_path: Path) -> None:
    """Its last line, or that there is no output, or no program."""
    (tmp_path / "raw").write_bytes(b"abc")
    with pytest.raises(WorkerError) as caught:
        run_command(words, tmp_path / "raw", tmp_path / "packed")
    assert message in str(caught.value)


def test_programs_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each known program, by the name it is called by."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {name: command.missing for name, command in known_programs().items()} == {
        name: name for name in ("zpaq", "7z", "bzip3", "lrzip", "cmix")
    }
