"""Hyperpriors: numbers quantised and coded under each, beside the published table, and what coarseness a text wants.

    python -m bench.hyperpriors [--coordinates 102400] [--levels 4,8,16,...] [--conditioner FILE.cond] [--picture PNG]
                                [--text FILE [--steps 80] [--factors 0.25,0.5,...] [--text-picture PNG]]

With a text, shifts of the model are trained on it, and rounded by multiples of the steps that training chose: bits
of the conditioner against bits of the text. Everything is decoded and compared; where something else comes back,
the command ends with status 1 and nothing is recorded. docs/benchmarks.md explains the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import published, results
from bench.arguments import positive, positives, read_text
from bench.conditioned import Coded, ConditionedText, Floats, TextTrainer, groups_of
from bench.conditioner_options import add_options, codec_of, decimals, training_of
from bench.hyperprior_pictures import draw_rates, draw_totals
from bench.published import GAUSSIAN_STEP, N_LEVELS, PublishedPrior
from bench.quantised import KINDS, Quantised, quantised
from bench.results import Figure
from llmzip.conditioning.conditioner_file import read_conditioner_file
from llmzip.conditioning.vectors import Vectors
from llmzip.errors import ConfigError, ExactnessError

DEFAULT_LEVELS = [4, 8, 16, 32, 64, 128, 256, 512, 1024]
DEFAULT_FACTORS = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
# How far the Gaussian error may be from step**2 / 12.
TOLERANCE = 0.05
PRIOR_HEADER = (
    "| coordinates | hyperprior | levels | step | squared error | entropy, bits/coordinate | metadata, bits "
    "| coordinates, bits | coded, bits | ratio to 32 bits |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)
TEXT_HEADER = (
    "| shifts rounded | side, bits | payload, bits | total, bits | payload ratio | total ratio |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


class Prior(NamedTuple):
    """A row of the table of hyperpriors.

    Attributes:
        source: what the coordinates are.
        levels: how they were chosen.
        found: the figures.
    """

    source: str
    levels: str
    found: Quantised

    def row(self) -> str:
        """In the order of `PRIOR_HEADER`."""
        q = self.found
        step = f"{q.step:.5g}" if q.step else ""
        bits = f"{q.entropy:.4f} | {q.metadata_bits:,.0f} | {q.coordinate_bits:,.0f} | {q.coded_bits:,} | {q.ratio:.4f}"
        return f"| {self.source} | {q.kind} | {self.levels} | {step} | {q.mse:.3e} | {bits} |"

    def figures(self) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{self.source}: {self.found.kind}, {self.levels} levels"
        yield Figure(case, "squared error", self.found.mse, "")
        yield Figure(case, "entropy", self.found.entropy, "bits/coordinate")
        yield Figure(case, "metadata", self.found.metadata_bits, "bits")
        yield Figure(case, "coded", self.found.coded_bits, "bits")
        yield Figure(case, "ratio", self.found.ratio, "bits/bit")


class Point(NamedTuple):
    """A coarseness of the shifts.

    Attributes:
        factor: of the learnt steps; 0 without a conditioner.
        coded: the text under them.
    """

    factor: float
    coded: Coded

    def row(self) -> str:
        """In the order of `TEXT_HEADER`."""
        c = self.coded
        bits = f"{c.side_bits:,} | {c.payload_bits:,} | {c.total_bits:,} | {c.ratio_without_side:.4f} | {c.ratio:.4f}"
        return f"| {self.name} | {bits} |"

    @property
    def name(self) -> str:
        """In the table."""
        return f"{self.factor:g} times the learnt steps" if self.factor else "no conditioner"

    def figures(self, text: str) -> Iterator[Figure]:
        """Rows for `bench/results.csv`."""
        case = f"{text}: shifts, {self.name}" if self.factor else f"{text}: {self.name}"
        yield Figure(case, "payload", self.coded.payload_bits, "bits")
        yield Figure(case, "side information", self.coded.side_bits, "bits")
        yield Figure(case, "total", self.coded.total_bits, "bits")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("hyperpriors", lambda: _once(_measure(chosen)), chosen.results)


def _once(figures: Iterable[Figure]) -> list[Figure]:
    """Each figure once: some are of the published table and of a curve."""
    return list({(figure.case, figure.metric): figure for figure in figures}.values())


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    normal = np.random.default_rng(chosen.seed).normal(size=chosen.coordinates).astype(np.float32)
    sources = {f"{chosen.coordinates} of N(0, 1)": [normal]}
    if chosen.conditioner:
        sources[chosen.conditioner.name] = conditioner_groups(chosen)
    yield from _published(normal, next(iter(sources)))
    points: list[Point] = []
    if chosen.text:
        points, shifts = _coarseness(chosen)
        sources[f"shifts of {chosen.text.name}"] = shifts
    curves = {source: _curves(source, groups, chosen.levels) for source, groups in sources.items()}
    for priors in curves.values():
        print("", *PRIOR_HEADER, *(prior.row() for prior in priors), sep="\n", flush=True)
        yield from (figure for prior in priors for figure in prior.figures())
    if chosen.picture:
        draw_rates({source: [prior.found for prior in priors] for source, priors in curves.items()}, chosen.picture)
    if points:
        yield from _report(points, chosen)


def _published(normal: Floats, source: str) -> Iterator[Figure]:
    """The published table's three rows and ours; the error of the Gaussian one must be that of its step."""
    gaussian = quantised([normal], "gaussian", step=GAUSSIAN_STEP)
    expect_uniform_error(gaussian)
    priors = [Prior(source, f"of {GAUSSIAN_STEP:.4f}", gaussian)]
    priors += [Prior(source, str(N_LEVELS), quantised([normal], kind, N_LEVELS)) for kind in KINDS]
    print(*PRIOR_HEADER, *(_published_row(prior) for prior in published.PRIORS.values()), sep="\n")
    print(*(prior.row() for prior in priors), "", sep="\n")
    print(*published.differences(published.HYPERPRIOR_DIFFERENCES), sep="\n", flush=True)
    yield from (figure for prior in priors for figure in prior.figures())


def _published_row(prior: PublishedPrior) -> str:
    bits = f"{prior.entropy:.4f} | {prior.metadata_bits:,} | {prior.coordinate_bits:,} | {prior.total_bits:,}"
    source = f"published: {published.N_COORDINATES} of N(0, 1)"
    return f"| {source} | {prior.name} | {N_LEVELS} |  | {prior.mse:.3e} | {bits} | {prior.ratio:.4f} |"


def expect_uniform_error(found: Quantised) -> None:
    """Hold the squared error of rounding against that of numbers that are uniform within a step.

    Raises:
        ExactnessError: it is more than a twentieth off.
    """
    expected = found.step**2 / 12
    if abs(found.mse - expected) > TOLERANCE * expected:
        raise ExactnessError(f"{found.kind}: expected a squared error near {expected:.4e}, found {found.mse:.4e}")


def _curves(source: str, groups: Sequence[Floats], levels: Sequence[int]) -> list[Prior]:
    return [Prior(source, str(n), quantised(groups, kind, n)) for kind in KINDS for n in levels]


def conditioner_groups(chosen: argparse.Namespace) -> list[Floats]:
    """The coordinates in a conditioner file, group by group; they are rounded already, and come of few levels.

    Raises:
        ConditionerMissingError: there is no such file.
        ConditionerInvalidError: it is damaged, or not of the model's shape.
        ConfigError: all in it are strings.
    """
    found = read_conditioner_file(chosen.conditioner).unpack_set(codec_of(chosen).artefact.spec)
    vectors = [entry for entry in found.entries if isinstance(entry, Vectors)]
    if found.basis is not None:
        vectors.append(found.basis.vectors)
    if not vectors:
        raise ConfigError(f"{chosen.conditioner}: expected coordinates, found strings only")
    return [group.values() for one in vectors for group in one.groups]


def _coarseness(chosen: argparse.Namespace) -> tuple[list[Point], list[Floats]]:
    """The text without a conditioner and under shifts of each coarseness; and the shifts, not rounded."""
    from llmzip_training.conditioner_files import vectors_of

    raw = read_text(chosen.text, chosen.bytes)
    codec = codec_of(chosen)
    text = ConditionedText(codec, raw, chosen.chunk, chosen.threads)
    trainer = TextTrainer(codec.artefact, raw, chosen.threads)
    trained = trainer.train(training_of(chosen, chosen.steps, 0, 1.0))
    points = [Point(0.0, text.code())]
    for factor in chosen.factors:
        rounded = vectors_of(trained.prefix, trained.shifts, (trained.steps * factor).tolist())
        points.append(Point(factor, text.code(rounded)))
    return points, groups_of(trained)


def _report(points: Sequence[Point], chosen: argparse.Namespace) -> Iterator[Figure]:
    n_raw = points[0].coded.n_raw
    title = f"{chosen.text.name}, {n_raw:,} bytes in chunks of {chosen.chunk:,}, {chosen.steps} steps"
    print(f"\n{title}; {results.device()}; decoded and compared\n")
    print(*TEXT_HEADER, *(point.row() for point in points), sep="\n")
    if chosen.text_picture:
        draw_totals([(point.factor, point.coded) for point in points], title, chosen.text_picture)
    for point in points:
        yield from point.figures(f"{chosen.text.name}, {n_raw} bytes")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.hyperpriors", description="Measure hyperpriors.")
    add = parser.add_argument
    default = published.N_COORDINATES
    add("--coordinates", type=positive, default=default, metavar="N", help=f"of N(0, 1); default: {default}")
    add("--levels", type=positives, default=DEFAULT_LEVELS, metavar="N,N", help="of the curves")
    add("--conditioner", type=Path, metavar="FILE", help="a trained one of the model, whose coordinates are coded too")
    add("--picture", type=Path, metavar="PNG", help="where to draw error against bits")
    add("--text", type=Path, metavar="FILE", help="what shifts are trained on; default: none are")
    add("--steps", type=positive, default=80, metavar="N", help="of training; default: 80")
    add("--factors", type=decimals, default=DEFAULT_FACTORS, metavar="X,X", help="of the learnt steps")
    add("--text-picture", type=Path, metavar="PNG", help="where to draw bits of the shifts and of the text")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if min(chosen.factors) == 0:
        parser.error("--factors: expected numbers above 0")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
