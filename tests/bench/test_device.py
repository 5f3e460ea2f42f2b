from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import device
from llmzip.archive import compress
from llmzip.codec import Codec
from llmzip.errors import ExactnessError
from llmzip.models.artefact import Artefact
from llmzip.options import CompressOptions
from llmzip.windows import Windowing


@pytest.mark.usefixtures("tiny_model")
def test_archives_of_both_devices_are_compared(
    sample_text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a GPU by the interpreter, and nothing is recorded."""
    (tmp_path / "text.py").write_bytes(sample_text)
    arguments = ["--models", "tiny", "--text", str(tmp_path / "text.py"), "--results", str(tmp_path / "r.csv")]
    assert device.main([*arguments, "--lanes", "2", "--windows", "64", "--repeats", "1"]) == 0
    assert "equal, each opened on the other device" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_model")
def test_another_archive_is_an_error(sample_text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it can be opened."""

    def longer(raw: bytes, options: CompressOptions) -> bytes:
        return compress(raw, replace(options, device="cpu")) * (2 if options.device == "cuda" else 1)

    monkeypatch.setattr("bench.device.compress", longer)
    with pytest.raises(ExactnessError, match="expected archives of both devices to be the same"):
        device.check("tiny", sample_text[:60], "none")


def test_lanes_are_timed_and_drawn(tiny_artefact: Artefact, sample_text: bytes, tmp_path: Path) -> None:
    """Each holds a window, whatever the length of the text."""
    codec = Codec(tiny_artefact, Windowing(32, 8))
    speeds = [device.speed_of(codec, "tiny", sample_text[:500], n_lanes, 2) for n_lanes in (1, 20)]
    assert [speed.n_lanes for speed in speeds] == [1, 20]
    assert speeds[1].n_raw > 500
    (first, *_) = speeds[0].figures()
    assert (first.case, first.metric, first.unit) == ("tiny, windows of 32, 1 lanes", "encode", "s")
    device.draw(speeds, tmp_path / "speeds.png")
    assert (tmp_path / "speeds.png").read_bytes()[:4] == b"\x89PNG"
