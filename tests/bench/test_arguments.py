from __future__ import annotations

import argparse

import pytest

from bench import hostile, program, pruned_cache, ranges, streams, tradeoff
from bench.arguments import positive, positives


def test_numbers_are_read() -> None:
    """One, or several with commas between."""
    assert (positive("7"), positives("1,20,3")) == (7, [1, 20, 3])


@pytest.mark.parametrize("text", ["0", "-1", "4,0"])
def test_numbers_below_one_are_refused(text: str) -> None:
    """The message names the number."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected at least 1, found (0|-1)"):
        positives(text)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (hostile, "--mutations"),
        (program, "--bytes"),
        (program, "--repeats"),
        (pruned_cache, "--lanes"),
        (pruned_cache, "--threads"),
        (ranges, "--length"),
        (streams, "--megabytes"),
        (tradeoff, "--bytes"),
        (tradeoff, "--threads"),
    ],
)
def test_commands_refuse_numbers_below_one(command: object, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a wrong command line, before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        command.main([option, "0", "--text", "none"])  # type: ignore[attr-defined]
    assert ended.value.code == 2
    assert f"argument {option}: expected at least 1, found 0" in capsys.readouterr().err
