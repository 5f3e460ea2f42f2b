from __future__ import annotations

import sys

import pytest

from llmzip_training.progress import ProgressDisplay

FACTS = {"step": 20, "elapsed_s": 10.0, "loss": 2.5, "bits_per_byte": 1.75, "tokens_per_s": 4000}


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line says all that is known, and the time left."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    display = ProgressDisplay(100.0, "step", 0.0)
    display.show(FACTS, 20.0, 40.0)
    display.close()
    line = capsys.readouterr().out
    assert line.startswith("step 20 ")
    for part in ("loss 2.5", "bits_per_byte 1.75", "tokens_per_s 4000", "left 0:00:40"):
        assert part in line


def test_bar_at_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows how far the run is, loss, bits per byte, speed and the time left; measurements stay on it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    display = ProgressDisplay(100.0, "step", 10.0)
    display.show({"step": 15, "elapsed_s": 5.0, "held_out": {"all": 1.5}}, 15.0, 60.0)
    display.show(FACTS, 20.0, 40.0)
    display.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.replace("\n", "\r").rstrip("\r").split("\r")[-1]
    for part in ("20%", "loss=2.5", "bits/byte=1.75", "tokens/s=4000", "held out=1.5", "left=0:00:40"):
        assert part in last
