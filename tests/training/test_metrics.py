from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmzip.errors import FileError
from llmzip_training.metrics import MetricsWriter, draw_curve, flat, read_metrics

LINES: list[dict[str, Any]] = [
    {"step": 1, "elapsed_s": 0.5, "loss": 2.0, "bits_per_byte": 1.5},
    {"step": 2, "elapsed_s": 1.0, "held_out": {"a": 1.0, "all": 1.25}, "context": 16},
    {"step": 3, "elapsed_s": 1.5, "loss": 1.0, "bits_per_byte": 0.75},
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a run with three lines of metrics."""
    metrics = MetricsWriter(tmp_path, 0)
    for line in LINES:
        metrics.write(line)
    metrics.close()
    return tmp_path


def test_lines_are_read_as_they_were_written(out: Path) -> None:
    """One JSON object a line."""
    assert read_metrics(out) == LINES


def test_continued_run_drops_the_steps_that_it_repeats(out: Path) -> None:
    """A line cut by the end of a process goes too, so no step is there twice."""
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')
    metrics = MetricsWriter(out, 2)
    metrics.write({"step": 3, "elapsed_s": 9.0, "loss": 0.5})
    metrics.close()
    assert read_metrics(out) == [*LINES[:2], {"step": 3, "elapsed_s": 9.0, "loss": 0.5}]


@pytest.mark.parametrize("rest", [b'{"step": 4, "los', b'{"step": 4}', b"\0\0\xff"])
def test_half_a_line_at_the_end_is_left_out(out: Path, rest: bytes) -> None:
    """It is being written, or was when the run was killed; the curve of such a run can be drawn."""
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(rest)
    assert read_metrics(out) == LINES


@pytest.mark.parametrize("line", [b"loss\n", b"[1]\n", b'{"loss": 1}\n', b"\xff\n"])
def test_damaged_metrics_are_named(out: Path, line: bytes) -> None:
    """A whole line that is no JSON object with a step, when they are read and when a run goes on."""
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(FileError, match=r"metrics\.jsonl: metrics: expected .*found another in line 4"):
        read_metrics(out)
    with pytest.raises(FileError, match="line 4"):
        MetricsWriter(out, 2)


def test_shards_are_flattened() -> None:
    """As names for a board and for a line."""
    assert flat(LINES[1]) == {"elapsed_s": 1.0, "held_out/a": 1.0, "held_out/all": 1.25, "context": 16}


def test_curve_is_a_picture(out: Path) -> None:
    """A PNG in the folder of the run."""
    picture = draw_curve(out)
    assert picture == out / "loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    """Its files hold the scalars of all lines."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = MetricsWriter(tmp_path, 0)
    for line in LINES:
        metrics.write(line)
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (3, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("held_out/all")] == [(2, 1.25)]


def test_tensorboard_keeps_the_step_that_a_run_continues_from(out: Path) -> None:
    """As the lines do: what came after it goes, it stays."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = MetricsWriter(out, 2)
    metrics.write({"step": 3, "elapsed_s": 9.0, "loss": 0.5})
    metrics.close()
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("held_out/all")] == [(2, 1.25)]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (3, 0.5)]


def test_continued_board_is_purged_from_the_next_step_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard purges the step that it is told, too."""
    told = []
    board = SimpleNamespace(SummaryWriter=lambda _, purge_step: told.append(purge_step))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    MetricsWriter(out, 2)
    assert told == [3]
