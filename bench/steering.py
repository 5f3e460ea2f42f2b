"""What steering a model costs and gains on one text: strings, prompts and shifts, their own bits counted.

    python -m bench.steering --text FILE [--bytes 50000] [--chunk 2000] [--rows 16] [--steps 20,80]
                             [--rate-weights 0,1] [--string TEXT]... [--no-shifts] [--model bundled]

Conditioners are trained on the very text, as the published ones were, whose figures are printed beside. Everything
is decoded and compared; where other bytes come back, the command ends with status 1 and nothing is recorded.
docs/benchmarks.md explains the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import published, results
from bench.arguments import positive, positives, read_text
from bench.conditioned import (
    Coded,
    ConditionedText,
    TextTrainer,
    embedding_deviation,
    random_prompt,
    with_levels,
)
from bench.conditioner_options import add_options, codec_of, decimals, training_of
from bench.published import N_LEVELS, PUBLISHED_STRING, Published
from bench.quantised import KINDS
from bench.results import Figure
from llmzip.conditioning.hyperpriors import Kind
from llmzip.conditioning.vectors import MAX_PREFIX, Vectors

if TYPE_CHECKING:
    from llmzip_training.steering import Trained

# What stands for a conditioner that is not rounded: so many levels move nothing.
FINEST_LEVELS = 4095
# Text of the same kind, in the middle of a sentence, as chunks begin.
BETTER_STRING = ". [[anarchist|anarchism]] and [["
MAX_WHOLE = 1 << 20
HEADER = (
    "| conditioner | rounded | payload, bits | side, bits | total, bits | payload ratio | total ratio | encode, s "
    "| decode, s | published | its bits | its ratio |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
)


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the conditioner, and of what is coded.
        rounded: how its coordinates are quantised; empty where there are none.
        coded: the figures.
        published: the row of the other table that it stands for.
    """

    name: str
    rounded: str
    coded: Coded
    published: Published | None = None

    def row(self) -> str:
        """In the order of `HEADER`."""
        c, p = self.coded, self.published
        bits = f"{c.payload_bits:,} | {c.side_bits:,} | {c.total_bits:,} | {c.ratio_without_side:.4f} | {c.ratio:.4f}"
        other = f"{p.name} | {p.bits:,} | {p.ratio:.4f}" if p else " |  | "
        return f"| {self.name} | {self.rounded} | {bits} | {c.encode_seconds:.2f} | {c.decode_seconds:.2f} | {other} |"

    def figures(self, text: str) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = ": ".join(part for part in (text, self.name, self.rounded) if part)
        yield Figure(case, "payload", self.coded.payload_bits, "bits")
        yield Figure(case, "side information", self.coded.side_bits, "bits")
        yield Figure(case, "total", self.coded.total_bits, "bits")
        yield Figure(case, "ratio of the payload", self.coded.ratio_without_side, "bits/bit")
        yield Figure(case, "ratio", self.coded.ratio, "bits/bit")
        yield Figure.timed(case, "encode", [self.coded.encode_seconds])
        yield Figure.timed(case, "decode", [self.coded.decode_seconds])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("steering", lambda: list(_measure(chosen)), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    bench = SteeringBench(chosen)
    print(f"{chosen.text.name}: {len(bench.raw):,} bytes in chunks of {chosen.chunk:,}; {bench.describe()}")
    print(f"{results.device()}; {chosen.threads} threads; decoded and compared\n")
    print(*HEADER, sep="\n", flush=True)
    for case in bench.cases():
        print(case.row(), flush=True)
        yield from case.figures(f"{chosen.text.name}, {len(bench.raw)} bytes")
    print("", *published.differences(published.STEERING_DIFFERENCES), sep="\n")


class SteeringBench:
    """All rows of the table.

    Args:
        chosen: the options.

    Attributes:
        raw: the text.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.raw = read_text(chosen.text, chosen.bytes)
        self._chosen = chosen
        self._codec = codec_of(chosen)
        self._text = ConditionedText(self._codec, self.raw, chosen.chunk, chosen.threads)
        self._published_runs: Mapping[int, Published] = {
            chosen.steps[0]: published.TRAINED_SHORT,
            chosen.steps[-1]: published.TRAINED_LONG,
        }

    def describe(self) -> str:
        """The model and its windows."""
        spec, windowing = self._codec.artefact.spec, self._codec.windowing
        shape = f"{spec.n_layers} layers of {spec.width}, vocabulary {spec.vocab_size:,}"
        return f"{self._chosen.model}: {shape}, windows of {windowing.window}, overlap {windowing.overlap}"

    def cases(self) -> Iterator[Case]:
        """One after another; training is between them."""
        whole = ConditionedText(self._codec, self.raw, MAX_WHOLE, self._chosen.threads)
        yield Case("none, whole", "", whole.code(), published.WHOLE)
        yield Case("none, in chunks", "", self._text.code(), published.CHUNKS)
        for string in [PUBLISHED_STRING, *self._chosen.strings]:
            other = published.STRING if string == PUBLISHED_STRING else None
            yield Case(f"string {_quoted(string)}", "", self._text.code(self._text.text_entry(string)), other)
        yield from self._random()
        trainer = TextTrainer(self._codec.artefact, self.raw, self._chosen.threads)
        for n_rows in [self._chosen.rows, 0][: 1 + self._chosen.shifts]:
            for weight in self._chosen.rate_weights:
                for steps in self._chosen.steps:
                    trained = trainer.train(training_of(self._chosen, steps, n_rows, weight))
                    yield from self._trained(trained, steps, weight)

    def _random(self) -> Iterator[Case]:
        width = self._codec.artefact.spec.width
        deviation = embedding_deviation(self._codec.artefact)
        prefix = random_prompt(self._chosen.rows, width, deviation, self._chosen.seed)
        name = f"random prompt, {self._chosen.rows} rows of N(0, {deviation:.3g}²)"
        for i, kind in enumerate(KINDS):
            coded = self._text.code(with_levels(prefix, prefix[:0], kind, N_LEVELS))
            yield Case(name, _levels(kind, N_LEVELS), coded, None if i else published.RANDOM)

    def _trained(self, trained: Trained, steps: int, weight: float) -> Iterator[Case]:
        n_rows = len(trained.prefix)
        name = f"{f'prompt, {n_rows} rows' if n_rows else 'shifts'}, {steps} steps, weight {weight:g}"
        for kind, n_levels, vectors in _roundings(trained, weight):
            rounded = _levels(kind, n_levels) if n_levels else f"{kind}, learnt steps"
            other = self._published(steps, kind, n_levels) if n_rows else None
            yield Case(name, rounded, self._text.code(vectors), other)

    def _published(self, steps: int, kind: Kind, n_levels: int) -> Published | None:
        """What a trained prompt stands for; only the longest run was rounded."""
        if n_levels == FINEST_LEVELS:
            return self._published_runs.get(steps)
        return published.ROUNDED_LONG[kind] if steps == self._chosen.steps[-1] and n_levels == N_LEVELS else None


def _roundings(trained: Trained, weight: float) -> Iterator[tuple[Kind, int, Vectors]]:
    """What is coded of a trained conditioner: hyperprior, levels, and it; 0 levels for the steps that were learnt."""
    from llmzip_training.conditioner_files import vectors_of

    prefix, shifts = trained.prefix, trained.shifts
    yield "gaussian", FINEST_LEVELS, with_levels(prefix, shifts, "gaussian", FINEST_LEVELS)
    for kind in KINDS:
        yield kind, N_LEVELS, with_levels(prefix, shifts, kind, N_LEVELS)
    # Where they cost nothing, steps only become finer and finer.
    if weight:
        for kind in KINDS:
            yield kind, 0, vectors_of(prefix, shifts, trained.steps.tolist(), kind)


def _levels(kind: Kind, n_levels: int) -> str:
    return f"{kind}, {n_levels} levels"


def _quoted(string: str) -> str:
    """A string as a table can hold it, its beginning if it is long."""
    shown = string if len(string) <= 32 else f"{string[:29]}..."
    return repr(shown).replace("|", "\\|")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.steering", description="Measure conditioners of a text.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what is coded, and trained on")
    add("--rows", type=positive, default=16, metavar="N", help=f"of prompts, at most {MAX_PREFIX}; default: 16")
    add("--steps", type=positives, default=[20, 80], metavar="N,N", help="of training runs; default: 20,80")
    add("--prompt-rate", type=float, default=1.0, metavar="RATE", help="in deviations of the embedding; default: 1")
    add("--rate-weights", type=decimals, default=[0.0, 1.0], metavar="W,W", help="of a conditioner's own bits")
    add(
        "--string",
        action="append",
        dest="strings",
        metavar="TEXT",
        help=f"beside the published one; default: {BETTER_STRING!r}",
    )
    add("--no-shifts", action="store_false", dest="shifts", help="train prompts only")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    chosen.strings = chosen.strings or [BETTER_STRING]
    if chosen.rows > MAX_PREFIX:
        parser.error(f"--rows: expected at most {MAX_PREFIX}, found {chosen.rows}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
