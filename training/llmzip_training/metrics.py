"""Keeps what a run reports, as JSON lines and for TensorBoard, and draws it.

`metrics.jsonl` has one object a line, each with `step` and `elapsed_s` (training time). Lines of training:

    loss                cross-entropy, nats a token, the mean over the steps since the line before
    memory_penalty      share of the window that the layers keep, where it has a weight; not part of `loss`
    bits_per_byte       estimate of `loss` in bits per byte of the training text
    gradient_norm       before clipping, of the last step
    rate                learning rate of the first optimiser, of the last step
    tokens_per_s        of all processes

Lines of measurements: `held_out`, bits per byte by shard and of `all`, and `context`, the length of the windows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmzip.errors import FileError
from llmzip_training.files import write_whole

FILE = "metrics.jsonl"
PICTURE = "loss.png"


class MetricsWriter:
    """Appends to the metrics of a run.

    Args:
        out: folder of the run.
        step: the step that it continues from; later lines, of steps that are now repeated, are dropped.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / FILE
        if self._path.exists():
            self._drop_after(step)
        self._board = _open_board(out / "tensorboard", step)

    def write(self, facts: Mapping[str, Any]) -> None:
        """Write one line; `facts` has `step` and `elapsed_s`."""
        with self._path.open("a") as file:
            file.write(json.dumps(facts) + "\n")
        if self._board:
            for name, value in flat(facts).items():
                self._board.add_scalar(name, value, facts["step"])

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board:
            self._board.close()

    def _drop_after(self, step: int) -> None:
        kept = [json.dumps(line) + "\n" for line in read_metrics(self._path.parent) if line["step"] <= step]
        write_whole(self._path, "".join(kept).encode())


def flat(facts: Mapping[str, Any]) -> dict[str, float]:
    """Facts without `step`, those of shards as `held_out/NAME`."""
    result: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            result |= {f"{name}/{key}": item for key, item in value.items()}
        elif name != "step":
            result[name] = value
    return result


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The metrics of a run, in order.

    What follows the last end of a line was cut where the run was killed, or is being written, and is left out.

    Raises:
        FileError: a line is no JSON object with a step.
    """
    whole, _, _ = (out / FILE).read_bytes().rpartition(b"\n")
    return [_parsed(line, i, out / FILE) for i, line in enumerate(whole.splitlines(), 1)]


def _parsed(line: bytes, i_line: int, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or type(facts.get("step")) is not int:
        message = f"metrics: expected a JSON object with a step in each line, found another in line {i_line}"
        raise FileError(message, path=str(path))
    return facts


def draw_curve(out: Path) -> Path | None:
    """Draw loss and held-out bits per byte over the steps as `loss.png`; `None` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    lines = read_metrics(out)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="step", ylabel="bits per byte", title=out.name)
    for label, name, style in (("training", "bits_per_byte", "-"), ("held out", "held_out", "o-")):
        points = [(line["step"], _number(line[name])) for line in lines if name in line]
        axes.plot([step for step, _ in points], [value for _, value in points], style, label=label, markersize=4)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(out / PICTURE, dpi=120)
    return out / PICTURE


def _number(value: Any) -> float:
    return float(value["all"] if isinstance(value, dict) else value)


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # What is purged begins with the step itself, and the lines of `step` stay.
    return SummaryWriter(folder, purge_step=step + 1)
