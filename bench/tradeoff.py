"""Points of ratio against speed: models and settings, each on the same text, in a table and a picture.

    python -m bench.tradeoff --text FILE [--bytes N] [--point NAME=MODEL[,SETTING=VALUE]...]... [--picture PNG]
                             [--repeats R] [--threads N]
    python -m bench.tradeoff --redraw settings|shapes --picture PNG

Settings are window, overlap (tokens), chunk (bytes), cutoff (nats) and budgets (a/b/c, keys of each layer). All chunks
are the model's, decoded and compared; where other bytes come back, nothing is printed and the command ends with
status 1. `--redraw` draws what the results have of the points in the tables of docs/benchmarks.md, which explains the
columns.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import results, scatter
from bench.arguments import positive, read_text
from bench.coding import Coding
from bench.contenders import BUNDLED, stored_model
from bench.model_tables import SHAPE_POINTS, TRADEOFF_POINTS, TRADEOFF_TEXT
from bench.recorded import Figures
from bench.results import Figure
from bench.scatter import Place
from bench.selection import budgets_of, with_selection
from bench.timing import Spread, interleave
from llmzip.chunking import split
from llmzip.codec import Codec
from llmzip.defaults import DEFAULT_LANES, default_chunk_size
from llmzip.encoding import GROUP_SIZE
from llmzip.errors import ExactnessError, LlmzipError
from llmzip.loading import choose_windowing
from llmzip.models.artefact import SPEC_FILE, TENSORS_FILE, TOKENIZER_FILE, Artefact, load_artefact
from llmzip.options import CompressOptions

DEFAULT_BYTES = 1_000_000
DEFAULT_THREADS = 2
HEADER = (
    "| point | parameters in products | parameters in look-ups | artefact, MB | bits per byte | encode, KB/s "
    "| decode, KB/s |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


_REDRAWN = {"settings": TRADEOFF_POINTS, "shapes": [*SHAPE_POINTS]}


class Point(NamedTuple):
    """A model and settings; what is None is as `llmzip compress` takes it, or as the model was converted.

    Attributes:
        name: in the table and in the picture.
        model: `bundled`, another model's name or id, or an artefact's folder.
        window, overlap: in tokens.
        chunk: greatest size of a chunk in bytes.
        budgets: the most keys that a query sees in each layer, or one number for all layers; 0 for no limit.
        cutoff: in nats.
    """

    name: str
    model: str
    window: int | None = None
    overlap: int | None = None
    chunk: int | None = None
    budgets: tuple[int, ...] | None = None
    cutoff: float | None = None


_SETTINGS: Mapping[str, Callable[[str], Any]] = {
    "window": int,
    "overlap": int,
    "chunk": int,
    "budgets": budgets_of,
    "cutoff": float,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    if chosen.redraw is not None:
        return _redraw(chosen)
    return results.record("tradeoff", lambda: _measure(chosen), chosen.results)


class PointCoding:
    """One point's way from a text to payloads and back.

    Attributes:
        coding: of the chunks.
        n_products: parameters in matrices that rows are multiplied with, a tied embedding among them.
        n_lookups: parameters in tables that rows are only taken from.
        artefact_bytes: size of the artefact's files.
        bits_per_byte: of the payloads.
    """

    def __init__(self, point: Point, raw: bytes, n_threads: int) -> None:
        folder = _artefact_folder(point.model)
        artefact = load_artefact(folder)
        if point.cutoff is not None or point.budgets is not None:
            artefact = with_selection(artefact, point.cutoff, point.budgets)
        windowing = choose_windowing(artefact.spec, point.window, point.overlap)
        self._codec = Codec(artefact, windowing)
        usual = default_chunk_size(artefact.spec, windowing.window, min(len(raw), GROUP_SIZE))
        size = CompressOptions(chunk_size=point.chunk).chunk_size or usual
        self._chunks = list(split(io.BytesIO(raw), size))
        # What the first use of a model compiles, is compiled here.
        self.coding = Coding.of_bytes(self._codec, self._chunks, DEFAULT_LANES, n_threads)
        self.coding.decode()
        self.n_products, self.n_lookups = count_parameters(artefact)
        self.artefact_bytes = sum((folder / name).stat().st_size for name in (SPEC_FILE, TENSORS_FILE, TOKENIZER_FILE))
        self.bits_per_byte = self.coding.n_bits / len(raw)

    def encode(self) -> None:
        """Tokenise the chunks and encode them, to the same payloads each time."""
        tokens = self._codec.tokenise(self._chunks)
        if not all(map(np.array_equal, tokens, self.coding.chunks)):
            raise ExactnessError(f"tokenise: expected the tokens of {len(tokens)} chunks as before, found others")
        self.coding.encode()

    def decode(self) -> None:
        """Decode the payloads; the bytes must be those of the text."""
        self.coding.decode()


def count_parameters(artefact: Artefact) -> tuple[int, int]:
    """Parameters in products and in look-ups; norms and biases, which are few, are in neither.

    A tied embedding is counted once, as a product.
    """
    spec = artefact.spec
    n_products = n_lookups = 0
    for name, matrix in artefact.parameters.matrices.items():
        if name.startswith("ngram") or (name == "embed" and not spec.tied_head):
            n_lookups += matrix.q.size
        else:
            n_products += matrix.q.size
    if spec.learned_positions:
        n_lookups += artefact.parameters.vectors["positions"].size
    return n_products, n_lookups


def _artefact_folder(model: str) -> Path:
    """A folder of a candidate needs no card."""
    return Path(model) if (Path(model) / SPEC_FILE).is_file() else stored_model(model).path


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    raw = read_text(chosen.text, chosen.bytes)
    codings = {point.name: PointCoding(point, raw, chosen.threads) for point in chosen.points}
    cases: dict[str, Callable[[], object]] = {}
    for name, coding in codings.items():
        cases |= {f"{name}: encode": coding.encode, f"{name}: decode": coding.decode}
    seconds = interleave(cases, chosen.repeats)
    found = {
        name: list(_figures(name, coding, len(raw), seconds[f"{name}: encode"], seconds[f"{name}: decode"]))
        for name, coding in codings.items()
    }
    print(f"{chosen.text.name}: {len(raw):,} bytes")
    print(f"{results.device()}; {chosen.threads} threads; medians of {chosen.repeats}; decoded and compared\n")
    print(*HEADER, *(_row(name, figures) for name, figures in found.items()), sep="\n")
    if chosen.picture is not None:
        draw(found, f"{chosen.text.name}, {len(raw):,} bytes", chosen.picture)
    prefix = f"{chosen.text.name}, {len(raw)} bytes"
    return [replace(figure, case=f"{prefix}: {figure.case}") for figures in found.values() for figure in figures]


def _figures(
    name: str, coding: PointCoding, n_raw: int, encode: Sequence[float], decode: Sequence[float]
) -> Iterator[Figure]:
    """In the order of the table's columns."""
    yield Figure(name, "parameters in products", coding.n_products, "")
    yield Figure(name, "parameters in look-ups", coding.n_lookups, "")
    yield Figure(name, "artefact", coding.artefact_bytes / 1e6, "MB")
    yield Figure(name, "payload", coding.bits_per_byte, "bits/byte")
    for metric, seconds in (("encode", encode), ("decode", decode)):
        speed = Spread.of(n_raw / 1000 / s for s in seconds)
        yield Figure(name, metric, speed.p50, "KB/s", speed)


def _row(name: str, figures: Sequence[Figure]) -> str:
    n_products, n_lookups, megabytes, ratio, encode, decode = (figure.value for figure in figures)
    return f"| {name} | {n_products:,} | {n_lookups:,} | {megabytes:.2f} | {ratio:.3f} | {encode:.1f} | {decode:.1f} |"


def _redraw(chosen: argparse.Namespace) -> int:
    """Draw recorded points; the exit status."""
    figures = Figures.read(chosen.results)
    found: dict[str, list[Figure]] = {}
    try:
        for name in _REDRAWN[chosen.redraw]:
            found[name] = [
                Figure(name, metric, figures.newest("tradeoff", f"{TRADEOFF_TEXT}: {name}", metric, unit), unit)
                for metric, unit in (("payload", "bits/byte"), ("decode", "KB/s"))
            ]
    except LlmzipError as error:
        print(f"tradeoff: {error}", file=sys.stderr)
        return 1
    draw(found, TRADEOFF_TEXT.replace("1000000", "1,000,000"), chosen.picture)
    return 0


def draw(found: Mapping[str, Sequence[Figure]], title: str, path: Path) -> None:
    """Draw bits per byte against decode speed, each point under its name; a line says so where that cannot be."""
    values = {name: {figure.metric: figure.value for figure in figures} for name, figures in found.items()}
    points = {name: Place(of_point["decode"], of_point["payload"]) for name, of_point in values.items()}
    scatter.draw({"decode, KB/s": points}, title, path)


def point_of(text: str) -> Point:
    """The point that `NAME=MODEL[,SETTING=VALUE]...` means.

    >>> point_of("small=bundled,window=256,budgets=64/0")
    Point(name='small', model='bundled', window=256, overlap=None, chunk=None, budgets=(64, 0), cutoff=None)
    """
    name, _, rest = text.partition("=")
    model, *parts = rest.split(",")
    if not name or not model:
        raise argparse.ArgumentTypeError(f"expected NAME=MODEL[,SETTING=VALUE]..., found {text}")
    settings = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in _SETTINGS or key in settings:
            raise argparse.ArgumentTypeError(f"{name}: expected one of {', '.join(_SETTINGS)}, each once, found {key}")
        try:
            settings[key] = _SETTINGS[key](value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{name}: {key}: expected a value, found {value!r}") from error
    return Point(name, model, **settings)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tradeoff", description="Measure ratio against speed.")
    add = parser.add_argument
    add("--text", type=Path, metavar="FILE", help="what to code")
    add("--bytes", type=positive, default=DEFAULT_BYTES, metavar="N", help=f"of it, at most; default: {DEFAULT_BYTES}")
    add("--point", type=point_of, action="append", dest="points", metavar="NAME=MODEL,...", help="default: bundled")
    add("--picture", type=Path, metavar="PNG", help="where to draw bits per byte against decode speed")
    add("--redraw", choices=tuple(_REDRAWN), help="measure nothing, draw the recorded points of a table")
    add("--repeats", type=positive, default=1, metavar="R", help="of everything; default: 1")
    add("--threads", type=positive, default=DEFAULT_THREADS, metavar="N", help=f"default: {DEFAULT_THREADS}")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    chosen = parser.parse_args(arguments)
    if chosen.redraw is None and chosen.text is None:
        parser.error("the following arguments are required: --text")
    if chosen.redraw is not None and chosen.picture is None:
        parser.error("--redraw: expected --picture")
    chosen.points = chosen.points or [Point(BUNDLED, BUNDLED)]
    if len({point.name for point in chosen.points}) < len(chosen.points):
        parser.error("--point: expected different names")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
