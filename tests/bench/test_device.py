from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# Without a GPU kernels run through Triton's interpreter, which must be chosen before Triton is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest.importorskip("triton")

from bench import device, device_speed, results, timing
from bench.device_picture import lines_of, newest
from bench.device_speed import Speed
from bench.results import Figure
from bench.timing import Spread
from llmzip.archive import compress
from llmzip.codec import Codec
from llmzip.errors import DeviceMemoryError, ExactnessError
from llmzip.exact.cuda import CudaBackend
from llmzip.lanes import Lanes
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


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """A few lanes and windows, and little to encode."""
    monkeypatch.setattr(timing, "REST_SECONDS", 0)
    return device._parse(["--lanes", "1,20", "--together", "2,3", "--tokens", "64", "--repeats", "2"])


def test_speeds_are_those_of_lanes_and_of_windows_together(
    tiny_artefact: Artefact, sample_text: bytes, chosen: argparse.Namespace
) -> None:
    """Each lane holds a window, whatever the length of the text; of windows there are four times as many."""
    speeds = list(device.speeds_of(Codec(tiny_artefact, Windowing(32, 8)), "tiny", sample_text[:500], chosen))
    assert [(speed.way, speed.n_together) for speed in speeds] == [
        ("decode", 1), ("decode", 20), ("encode", 2), ("encode", 3),
    ]  # fmt: skip
    assert speeds[1].n_raw > 500
    assert speeds[0].n_raw < speeds[2].n_raw < speeds[3].n_raw < speeds[1].n_raw
    (first, second, *_) = speeds[3].figures()
    assert (first.case, first.metric, first.unit) == ("tiny, windows of 32, 3 windows together", "encode", "s")
    assert (second.metric, second.unit) == ("encode speed", "KB/s")


def test_what_is_captured_is_captured_before_the_clock_goes(
    tiny_artefact: Artefact, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a cache made then, with which what is captured would go."""
    seconds_of, n_captured, timed = timing.seconds_of, 0, []

    def capture(run: Callable[[], Any]) -> Callable[[], Any]:
        nonlocal n_captured
        n_captured += 1
        return run

    def observed(case: Callable[[], object]) -> float:
        before, seconds = n_captured, seconds_of(case)
        timed.append(n_captured - before)
        return seconds

    monkeypatch.setattr(timing, "seconds_of", observed)
    codec = Codec(tiny_artefact, Windowing(4, 0), CudaBackend(capture))
    device_speed.decode_speed(device_speed.coding_of(codec, sample_text[:50], 2), "tiny", 2, 1)
    assert (n_captured, timed) == (1, [0])


def test_lanes_without_room_are_left_out(
    tiny_artefact: Artefact,
    sample_text: bytes,
    chosen: argparse.Namespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line says so, and the others are measured."""

    def few(codec: Codec, n_lanes: int) -> Lanes:
        if n_lanes > 1:
            raise DeviceMemoryError("cuda: full")
        return Lanes(codec, n_lanes)

    monkeypatch.setattr(device_speed, "Lanes", few)
    speeds = device.speeds_of(Codec(tiny_artefact, Windowing(32, 8)), "tiny", sample_text[:500], chosen)
    assert [speed.n_together for speed in speeds] == [1, 2, 3]
    assert capsys.readouterr().err == "tiny, windows of 32, 20 lanes: left out: cuda: full\n"


def test_the_picture_is_drawn_from_rows_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of each case, of the machine that was the last to measure; and without measuring anything."""
    path, picture = tmp_path / "results.csv", tmp_path / "speeds.png"
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    spread = Spread.of([2.0])
    old, new = (
        [Speed("tiny", 32, way, n, n_raw, spread) for way in ("decode", "encode") for n in (1, 8)]
        for n_raw in (1000, 4000)
    )
    for machine, speeds in (("old GPU", old), ("GPU", old), ("GPU", new)):
        results.append("device", [figure for speed in speeds for figure in speed.figures()], path, machine)
    results.append("other", [Figure("tiny, windows of 32, 1 lanes", "decode speed", 7, "KB/s")], path, "GPU")
    assert lines_of(newest(path)) == {way: {"tiny, windows of 32": {1: 2.0, 8: 2.0}} for way in ("decode", "encode")}
    assert device.main(["--redraw", "--picture", str(picture), "--results", str(path)]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        device.main(["--redraw", "--results", str(path)])
