"""The exact engine on a GPU: whether it computes what the CPU does, and how fast, against lanes and windows.

    python -m bench.device [--models bundled,smollm2-135m] [--text FILE] [--lanes 64,512,2048] [--windows 256,1024,2048]
                           [--repeats R] [--picture PNG]

Each model first makes an archive on either device, and each archive is opened on the other; where a byte differs, no
speed is printed and the command ends with status 1. Then as many chunks as lanes, a window of tokens each, are encoded
and decoded on the GPU, and compared. Without a GPU the first part goes through Triton's interpreter, on a little text,
and no speed is measured. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import results
from bench.arguments import positive, positives, read_text
from bench.coding import Coding
from bench.contenders import BUNDLED, model_reference
from bench.kernels import accelerator
from bench.results import Figure
from bench.timing import Spread, interleave
from llmzip.archive import compress, decompress
from llmzip.codec import Codec
from llmzip.errors import ExactnessError, LlmzipError
from llmzip.loading import load_codec
from llmzip.options import CompressOptions, DecompressOptions

DEFAULT_TEXT = results.ROOT / "llmzip" / "format" / "SPEC.md"
CHECKED_BYTES, INTERPRETED_BYTES = 50_000, 24
DEVICES = ("cpu", "cuda")
NO_GPU = "no GPU here: archives are only compared, through Triton's interpreter; no speed is measured"
HEADER = (
    "| model | window | lanes | encode, KB/s | decode, KB/s |",
    "| --- | ---: | ---: | ---: | ---: |",
)


class Speed(NamedTuple):
    """What a model reached, the medians of repetitions."""

    model: str
    window: int
    n_lanes: int
    n_raw: int
    encode: Spread
    decode: Spread

    def kilobytes(self, spread: Spread) -> float:
        """Of raw text in a second."""
        return self.n_raw / spread.p50 / 1000

    def row(self) -> str:
        """A row of the table."""
        speeds = f"{self.kilobytes(self.encode):,.1f} | {self.kilobytes(self.decode):,.1f}"
        return f"| {self.model} | {self.window:,} | {self.n_lanes:,} | {speeds} |"

    def figures(self) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{self.model}, windows of {self.window}, {self.n_lanes} lanes"
        for name, spread in (("encode", self.encode), ("decode", self.decode)):
            yield Figure(case, name, spread.p50, "s", spread)
            yield Figure(case, f"{name} speed", self.kilobytes(spread), "KB/s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    import torch

    if torch.cuda.is_available():
        return results.record("device", lambda: measure(chosen), chosen.results, accelerator())
    os.environ.setdefault("TRITON_INTERPRET", "1")
    print(NO_GPU)
    try:
        for model in chosen.models:
            print(check(model, read_text(chosen.text)[:INTERPRETED_BYTES], "none"))
    except LlmzipError as error:
        print(f"device: {error}", file=sys.stderr)
        return 1
    return 0


def check(model: str, raw: bytes, conditioner: str = "auto") -> str:
    """Make an archive on either device, and open each on the other; what was compared.

    Args:
        model: its name.
        raw: text.
        conditioner: as `CompressOptions` has it; the canary of many conditioners takes an interpreter long.

    Raises:
        ExactnessError: a canary, an archive or a text differs.
    """
    reference = model_reference(model)
    plain = CompressOptions(model=reference, conditioner=conditioner, workers=0)
    options = {device: replace(plain, device=device) for device in DEVICES}
    canaries = {device: load_codec(option).canary().hex() for device, option in options.items()}
    archives = {device: compress(raw, option) for device, option in options.items()}
    for name, found in (("canaries", canaries), ("archives", archives)):
        if found["cuda"] != found["cpu"]:
            raise ExactnessError(f"{model}: expected {name} of both devices to be the same, found others")
    for maker, opener in (DEVICES, DEVICES[::-1]):
        opened = decompress(archives[maker], DecompressOptions(model=reference, device=opener, workers=0))
        if opened != raw:
            raise ExactnessError(f"{model}: expected the text of {maker}'s archive on {opener}, found something else")
    n_archive = len(archives["cpu"])
    return f"{model}: {len(raw):,} bytes, archives of {n_archive:,} bytes equal, each opened on the other device"


def measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    """Compare and time on the GPU, and print the table."""
    raw = read_text(chosen.text)
    told = [check(model, raw[:CHECKED_BYTES]) for model in chosen.models]
    speeds = [speed for model in chosen.models for speed in _speeds(model, raw, chosen)]
    print(*told, "", f"{accelerator()}; medians of {chosen.repeats}; decoded and compared", "", sep="\n")
    print(*HEADER, *(speed.row() for speed in speeds), sep="\n")
    if chosen.picture is not None:
        draw(speeds, chosen.picture)
    for speed in speeds:
        yield from speed.figures()


def _speeds(model: str, raw: bytes, chosen: argparse.Namespace) -> Iterator[Speed]:
    """Of all windows that the model has, and all numbers of lanes that the device has memory for."""
    import torch

    spec = load_codec(CompressOptions(model=model_reference(model), device="cuda")).artefact.spec
    for window in (window for window in chosen.windows if window <= spec.max_positions):
        codec = load_codec(CompressOptions(model=model_reference(model), device="cuda", window=window))
        for n_lanes in chosen.lanes:
            try:
                yield speed_of(codec, model, raw, n_lanes, chosen.repeats)
            except torch.cuda.OutOfMemoryError:
                print(f"{model}, windows of {window}: no memory for {n_lanes} lanes", file=sys.stderr)
                torch.cuda.empty_cache()


def speed_of(codec: Codec, model: str, raw: bytes, n_lanes: int, repeats: int) -> Speed:
    """Encode and decode as many chunks as lanes; the text is gone through again and again until they are full."""
    window = codec.windowing.window
    tokens = np.resize(codec.tokenise([raw])[0], n_lanes * window).reshape(n_lanes, window)
    coding = Coding(codec, list(tokens), n_lanes, 1)
    # What is compiled and captured when it is first used is no part of the times.
    coding.decode()
    seconds = interleave({"encode": coding.encode, "decode": coding.decode}, repeats)
    spreads = (Spread.of(seconds[name]) for name in ("encode", "decode"))
    return Speed(model, window, n_lanes, coding.n_raw, *spreads)


def draw(speeds: Sequence[Speed], path: Path) -> None:
    """Speed against lanes, a line for each model and window."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    lines = sorted({(speed.model, speed.window) for speed in speeds})
    for panel, name in zip(panels, ("encode", "decode"), strict=True):
        for line in lines:
            own = [speed for speed in speeds if (speed.model, speed.window) == line]
            y = [speed.kilobytes(getattr(speed, name)) for speed in own]
            panel.plot([speed.n_lanes for speed in own], y, "o-", label=f"{line[0]}, windows of {line[1]}")
        panel.set(title=name, xlabel="lanes", xscale="log", yscale="log")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("KB/s")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.device", description="Measure the engine on a GPU.")
    add = parser.add_argument
    add("--models", type=lambda text: text.split(","), default=[BUNDLED], metavar="NAME,NAME", help="default: bundled")
    add("--text", type=Path, default=DEFAULT_TEXT, metavar="FILE", help="default: SPEC.md")
    add("--lanes", type=positives, default=[64, 512, 2048], metavar="N,N", help="default: 64,512,2048")
    add("--windows", type=positives, default=[256, 1024, 2048], metavar="N,N", help="default: 256,1024,2048")
    add("--repeats", type=positive, default=3, metavar="R", help="default: 3")
    add("--picture", type=Path, metavar="PNG", help="where to draw speed against lanes")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
