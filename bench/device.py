"""The exact engine on a GPU: whether it computes what the CPU does, and how fast, against lanes and windows.

    python -m bench.device [--models bundled,smollm2-135m] [--text FILE] [--windows 256,1024,2048]
                           [--lanes 64,512,2048] [--together 1,8,32] [--tokens 262144] [--repeats R]
                           [--picture PNG]
    python -m bench.device --redraw --picture PNG [--results CSV]

Each model first makes an archive on either device, and each archive is opened on the other; where a byte differs, no
speed is printed and the command ends with status 1. Then chunks of a window of tokens each are decoded in so many
lanes, and encoded with so many windows evaluated together, on the GPU, and compared. Without a GPU the first part goes
through Triton's interpreter, on a little text, and no speed is measured. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import results
from bench.arguments import positive, positives, read_text
from bench.contenders import BUNDLED, model_reference
from bench.device_picture import draw, newest
from bench.device_speed import Speed, coding_of, decode_speed, encode_speed, n_encoded
from bench.kernels import accelerator
from bench.results import Figure
from llmzip.archive import compress, decompress
from llmzip.codec import Codec
from llmzip.errors import DeviceMemoryError, ExactnessError, LlmzipError
from llmzip.loading import load_codec
from llmzip.options import CompressOptions, DecompressOptions

DEFAULT_TEXT = results.ROOT / "llmzip" / "format" / "SPEC.md"
CHECKED_BYTES, INTERPRETED_BYTES = 50_000, 24
DEVICES = ("cpu", "cuda")
NO_GPU = "no GPU here: archives are only compared, through Triton's interpreter; no speed is measured"
HEADER = (
    "| model | window | way | together | KB/s |",
    "| --- | ---: | --- | ---: | ---: |",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    if chosen.redraw:
        draw(newest(chosen.results), chosen.picture)
        return 0
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


def measure(chosen: argparse.Namespace) -> list[Figure]:
    """Compare and time on the GPU, and print the table."""
    raw = read_text(chosen.text)
    told = [check(model, raw[:CHECKED_BYTES]) for model in chosen.models]
    speeds = [speed for model in chosen.models for speed in _speeds(model, raw, chosen)]
    print(*told, "", f"{accelerator()}; medians of {chosen.repeats}; decoded and compared", "", sep="\n")
    print(*HEADER, *(speed.row() for speed in speeds), sep="\n")
    figures = [figure for speed in speeds for figure in speed.figures()]
    if chosen.picture is not None:
        draw(figures, chosen.picture)
    return figures


def _speeds(model: str, raw: bytes, chosen: argparse.Namespace) -> Iterator[Speed]:
    """Of all windows that the model has; without conditioners, under which a window is evaluated several times."""
    options = CompressOptions(model=model_reference(model), device="cuda", conditioner="none")
    spec = load_codec(options).artefact.spec
    for window in (window for window in chosen.windows if window <= spec.max_positions):
        yield from speeds_of(load_codec(replace(options, window=window)), model, raw, chosen)


def speeds_of(codec: Codec, model: str, raw: bytes, chosen: argparse.Namespace) -> Iterator[Speed]:
    """Of all numbers of lanes, and of windows together, that the device has memory for."""
    coding = coding_of(codec, raw, max(chosen.lanes), n_encoded(codec, max(chosen.together), chosen.tokens))
    name = f"{model}, windows of {codec.windowing.window}"
    for n in chosen.lanes:
        yield from _where_there_is_room(f"{name}, {n} lanes", partial(decode_speed, coding, model, n, chosen.repeats))
    for n in chosen.together:
        measured = partial(encode_speed, coding, model, n, n_encoded(codec, n, chosen.tokens), chosen.repeats)
        yield from _where_there_is_room(f"{name}, {n} windows together", measured)


def _where_there_is_room(name: str, measured: Callable[[], Speed]) -> Iterator[Speed]:
    import torch

    try:
        yield measured()
    except DeviceMemoryError as error:
        print(f"{name}: left out: {error}", file=sys.stderr)
    # By now nobody holds what the last ones took.
    torch.cuda.empty_cache()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.device", description="Measure the engine on a GPU.")
    add = parser.add_argument
    add("--models", type=lambda text: text.split(","), default=[BUNDLED], metavar="NAME,NAME", help="default: bundled")
    add("--text", type=Path, default=DEFAULT_TEXT, metavar="FILE", help="default: SPEC.md")
    add("--lanes", type=positives, default=[64, 512, 2048], metavar="N,N", help="default: 64,512,2048")
    add("--windows", type=positives, default=[256, 1024, 2048], metavar="N,N", help="default: 256,1024,2048")
    add("--together", type=positives, default=[1, 8, 32], metavar="N,N", help="windows; default: 1,8,32")
    add("--tokens", type=positive, default=1 << 18, metavar="N", help="encoded at least; default: 262144")
    add("--repeats", type=positive, default=3, metavar="R", help="default: 3")
    add("--picture", type=Path, metavar="PNG", help="where to draw speed against both")
    add("--redraw", action="store_true", help="only draw, from the newest rows of --results; needs no GPU")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    chosen = parser.parse_args(arguments)
    if chosen.redraw and chosen.picture is None:
        parser.error("--redraw: expected --picture, found none")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
