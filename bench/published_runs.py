"""The published table of models side by side: the beginning of a text, whole and in chunks, beside ours.

    python -m bench.published_runs --text FILE [--models bundled,smollm2-135m] [--bytes 50000] [--chunk 2000]
                                   [--threads N]

Everything of ours is decoded and compared. A model that is not there, or fails, is a row that says so, the others are
measured all the same, and the command ends with status 1. docs/benchmarks.md explains the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import published, results
from bench.arguments import positive, read_text
from bench.conditioned import ConditionedText
from bench.contenders import BUNDLED, model_reference
from bench.published import N_INPUT_BITS, differences
from bench.results import Figure
from llmzip.codec import Codec
from llmzip.errors import LlmzipError
from llmzip.loading import load_codec
from llmzip.options import CompressOptions

BENCH = "published_runs"
_MAX_WHOLE = 1 << 20
HEADER = (
    "| run | encode, s | decode, s | bits | ratio | decoded |",
    "| --- | ---: | ---: | ---: | ---: | --- |",
)


class PublishedRun(NamedTuple):
    """A row of the published table; seconds are of its authors' machine.

    Attributes:
        name: of model and cut.
        encode_seconds, decode_seconds: of the whole text.
        bits: of the text.
        decoded: whether the same tokens came back.
    """

    name: str
    encode_seconds: float
    decode_seconds: float
    bits: int
    decoded: str = "tokens equal"

    def row(self) -> str:
        """In the order of `HEADER`."""
        seconds = f"{self.encode_seconds:,.0f} | {self.decode_seconds:,.0f}"
        return f"| {self.name} | {seconds} | {self.bits:,} | {self.bits / N_INPUT_BITS:.4f} | {self.decoded} |"


# Source: as in `bench.published`.
RUNS = (
    PublishedRun("Pythia-70m, whole", 733.66, 731.65, published.WHOLE.bits),
    PublishedRun("Pythia-70m, chunks", 138.17, 152.33, published.CHUNKS.bits),
    PublishedRun("Pythia-160m", 335.48, 339.62, 57_478),
    PublishedRun("GPT-2", 379.86, 380.13, 61_388, "no: other tokens from 6,434 on"),
    PublishedRun("OpenLLaMA 3B, 8 bits", 3297.45, 3263.61, 38_099),
    PublishedRun("OpenLLaMA 7B, 8 bits", 3971.34, 3957.65, 36_262, "no: other tokens from 12,000 on"),
)
DIFFERENCES = (
    ("model", "public ones, in floating point", "`--models`, in exact integers"),
    ("passes", "one for each token over all before it, both ways", "whole windows to encode, lanes to decode"),
    ("first token and length of a chunk", "given to the decoder, not counted", "coded; lengths are the container's"),
    ("tokeniser", "on the text read as latin-1", "the model's own, on bytes"),
    ("check", "tokens compared; two models did not decode", "every payload decoded, its bytes compared"),
    ("machine", "another one; its seconds compare nothing but their own", "the device of these rows"),
)


class Coded(NamedTuple):
    """A model's figures of the text, cut in one way."""

    name: str
    encode_seconds: float
    decode_seconds: float
    bits: int
    ratio: float

    def row(self) -> str:
        """In the order of `HEADER`."""
        seconds = f"{self.encode_seconds:,.1f} | {self.decode_seconds:,.1f}"
        return f"| {self.name} | {seconds} | {self.bits:,} | {self.ratio:.4f} | bytes equal |"

    def figures(self, text: str) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{text}: {self.name}"
        yield Figure.timed(case, "encode", [self.encode_seconds])
        yield Figure.timed(case, "decode", [self.decode_seconds])
        yield Figure(case, "payload", self.bits, "bits")
        yield Figure(case, "ratio", self.ratio, "bits/bit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    try:
        raw = read_text(chosen.text, chosen.bytes)
    except (OSError, LlmzipError) as error:
        print(f"{BENCH}: {error}", file=sys.stderr)
        return 1
    text = f"{chosen.text.name}, {len(raw)} bytes"
    print(f"{text}; {results.device()}; {chosen.threads} threads; decoded and compared\n")
    print(*HEADER, *(run.row() for run in RUNS), sep="\n", flush=True)
    statuses = [_measure(model, raw, text, chosen) for model in chosen.models.split(",")]
    print("", *differences(DIFFERENCES), sep="\n")
    return int(any(statuses))


def _measure(model: str, raw: bytes, text: str, chosen: argparse.Namespace) -> int:
    """Both ways to cut the text with one model; the exit status that its failure means."""
    try:
        codec = load_codec(CompressOptions(model=model_reference(model), conditioner="none", device="cpu"))
        for coded in _coded(codec, model, raw, chosen):
            print(coded.row(), flush=True)
            results.append(BENCH, coded.figures(text), chosen.results)
    except LlmzipError as error:
        print(f"| {model} | | | | | no: {error} |", flush=True)
        print(f"{BENCH}: {error}", file=sys.stderr)
        case = f"{text}: {model}: {' '.join(str(error).split())}"
        results.append(BENCH, [Figure(case, "failed", error.exit_code, "exit status")], chosen.results)
        return error.exit_code
    return 0


def _coded(codec: Codec, model: str, raw: bytes, chosen: argparse.Namespace) -> Iterator[Coded]:
    for cut, size in (("chunks", chosen.chunk), ("whole", _MAX_WHOLE)):
        coded = ConditionedText(codec, raw, size, chosen.threads).code()
        name = f"llmzip, {model}, {cut}"
        yield Coded(name, coded.encode_seconds, coded.decode_seconds, coded.payload_bits, coded.ratio_without_side)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{BENCH}", description="Repeat a published experiment.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what is coded; enwik8 for the published one")
    add("--models", default=BUNDLED, help="names, ids or paths, with commas between; default: bundled")
    add("--bytes", type=positive, default=50_000, metavar="N", help="of the text; default: 50000")
    add("--chunk", type=positive, default=2000, metavar="N", help="bytes of a chunk; default: 2000")
    add("--threads", type=positive, default=results.n_cores(), metavar="N", help="default: one a core")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
