from __future__ import annotations

import re
from typing import Any

import pytest


def test_version_tells_all_that_decides_an_archive(run: Any) -> None:
    """The program's, the format's, the arithmetic's and the coder's."""
    done = run("--version")
    assert re.fullmatch(rb"llmzip \d+\.\d+\.\d+ \(format \d+, arithmetic \d+, entropy coder \d+\)\n", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, run: Any) -> None:
    """The program prints the script that a shell needs for it."""
    # Otherwise the shell that the test runs in would be found out, if there is one.
    done = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert f"_LLMZIP_COMPLETE=complete_{shell}".encode() in done.stdout


def test_nothing_is_coloured_for_pipes(run: Any) -> None:
    """Neither help nor refusals hold an escape."""
    for arguments in (("--help",), ("compress", "--help"), ("compress", "none"), ("compress", "--window", "1")):
        done = run(*arguments)
        assert b"\x1b" not in done.stdout + done.stderr
