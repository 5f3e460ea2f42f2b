"""How fast: the engine against the same model in float32, against its own products alone, and decode against encode.

    python -m bench.engine [--model bundled] [--text FILE] [--tokens N] [--lanes 1,8,64] [--repeats R]

All cases take turns in one run, and medians are compared. Every run of the encoder must give the same bytes,
every run of the decoder the text; where one does not, nothing is printed and the command ends with status 1.
docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import results
from bench.arguments import positive, positives
from bench.contenders import BUNDLED, model_reference
from bench.float_model import FloatModel
from bench.floor import Floor
from bench.matrices import seconds_of_shapes
from bench.results import Figure
from bench.timing import Spread, interleave
from bench.workload import ENCODE, FLOAT, FLOOR, TOKENISE, Case, Workload, decode_name, encode_name
from llmzip.loading import load_codec
from llmzip.options import CompressOptions

DEFAULT_TEXT = results.ROOT / "llmzip" / "format" / "SPEC.md"
# Six windows of the default sizes, 1,024 tokens with an overlap of 256: as many for each of 2, 3 or 6 cores.
DEFAULT_TOKENS = 1024 + 5 * 768
# No token is longer on average, so this many bytes a token are enough to read.
_BYTES_A_TOKEN = 16

Seconds = Mapping[str, Sequence[float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("engine", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    codec = load_codec(CompressOptions(model=model_reference(chosen.model)))
    with chosen.text.open("rb") as file:
        text = file.read(_BYTES_A_TOKEN * chosen.tokens)
    workload = Workload(codec, text, chosen.tokens, results.n_cores())
    workload.check()
    model = FloatModel(codec.artefact.spec, chosen.float, workload.n_threads)
    cases = list(workload.coding_cases(model, Floor(codec), chosen.rows))
    cases += [case for n_lanes in chosen.lanes for case in workload.lane_cases(n_lanes)]
    seconds = interleave({case.name: case.run for case in cases}, chosen.repeats)
    print(f"{chosen.model}, {chosen.text.name}: {len(workload.tokens):,} tokens, {len(workload.raw):,} bytes")
    print(f"{results.device()}; medians of {chosen.repeats}\n")
    prefix = f"{chosen.model}, {chosen.text.name}"
    for figures in (
        speeds(cases, seconds),
        ratios(seconds, chosen.lanes),
        _bits(workload, model if chosen.float else None),
        _products(workload, chosen.repeats),
    ):
        yield from (Figure(f"{prefix}: {f.case}", f.metric, f.value, f.unit, f.spread) for f in figures)


def speeds(cases: Sequence[Case], seconds: Seconds) -> Iterator[Figure]:
    """Print each case's median as a row, and yield its time for one token and its speeds."""
    print("| case | tokens | ms a token | tokens/s | KB/s |", "| --- | ---: | ---: | ---: | ---: |", sep="\n")
    for case in cases:
        ms = Spread.of(1000 * s / case.n_tokens for s in seconds[case.name])
        tokens, kilobytes = 1000 / ms.p50, case.n_raw / case.n_tokens / ms.p50
        print(f"| {case.name} | {case.n_tokens:,} | {ms.p50:.4g} | {tokens:.4g} | {kilobytes:.4g} |")
        yield Figure(case.name, "time", ms.p50, "ms/token", ms)
        yield Figure(case.name, "token speed", tokens, "tokens/s")
        yield Figure(case.name, "speed", kilobytes, "KB/s")
    print()


def ratios(seconds: Seconds, lanes: Sequence[int]) -> Iterator[Figure]:
    """Print and yield what the medians say of each other."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    found = [
        ("encode speed / float32 speed", median[FLOAT] / median[ENCODE]),
        ("encode time / products' time", median[ENCODE] / median[FLOOR]),
        ("tokenise time / encode time with it", median[TOKENISE] / (median[TOKENISE] + median[ENCODE])),
    ]
    for n in lanes:
        speed = median[encode_name(n)] / median[decode_name(n)]
        found.append((f"{decode_name(n)}: speed / encode speed", speed))
    print("| ratio | |", "| --- | ---: |", sep="\n")
    for name, value in found:
        print(f"| {name} | {value:.3f} |")
        yield Figure(name, "ratio", value, "")
    print()


def _bits(workload: Workload, model: FloatModel | None) -> Iterator[Figure]:
    """What the text costs in exact arithmetic, and what the float model would make an ideal coder pay."""
    exact = workload.bits_per_byte
    print(f"payload: {exact:.4f} bits per byte")
    yield Figure("payload", "ratio", exact, "bits/byte")
    if model is not None:
        ideal = model.cost_bits([workload.tokens], workload.codec.windowing) / len(workload.raw)
        print(f"float32 model, ideal coder: {ideal:.4f} bits per byte; payload {100 * (exact / ideal - 1):+.2f} %")
        yield Figure("float32 model, ideal coder", "ratio", ideal, "bits/byte")
    print()


def _products(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Speeds of products of the model's shapes."""
    codec, n_cores = workload.codec, workload.n_threads
    print("| product | llmzip, Gop/s | torch._int_mm, Gop/s | float32 BLAS, Gop/s |")
    print("| --- | ---: | ---: | ---: |")
    measured = seconds_of_shapes(codec.backend, codec.artefact.parameters, workload.pool, n_cores, repeats)
    for shape, gop, seconds in measured:
        spreads = {way: Spread.of(gop / s for s in runs) for way, runs in seconds.items()}
        print(f"| {shape} |", " | ".join(f"{spread.p50:.4g}" for spread in spreads.values()), "|")
        for way, spread in spreads.items():
            yield Figure(f"product {shape}, {way}", "speed", spread.p50, "Gop/s", spread)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="Time the engine, side by side.")
    add = parser.add_argument
    add("--model", default=BUNDLED, help="name, id or path; default: bundled")
    add("--text", type=Path, default=DEFAULT_TEXT, metavar="FILE", help="what to code; default: the format's text")
    add("--tokens", type=positive, default=DEFAULT_TOKENS, metavar="N", help="of the text, at most")
    add("--lanes", type=positives, default=[1, 8, 64], metavar="N,N", help="to decode in; default: 1,8,64")
    add("--rows", type=positives, default=[], metavar="N,N", help="encode in blocks of so many rows too")
    add("--repeats", type=positive, default=3, metavar="R", help="of everything; default: 3")
    add(
        "--float",
        type=Path,
        metavar="SOURCE",
        help="the model's Hugging Face folder or GGUF file, or a run of the trainer",
    )
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
