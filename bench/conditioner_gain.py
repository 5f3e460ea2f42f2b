"""What conditioners gain: archives with `auto` against archives with `none`, text by text.

    python -m bench.conditioner_gain FILES... [-D FILE.cond] [--model bundled] [--articles 20 --data DIR] [--tune S]
                                    [--tune-chunks S] [--first BYTES] [--chunk-size BYTES]

Every archive is decompressed and compared. Texts of one kind can be grouped by `KIND=FILE`; the last lines are the mean
gain of each kind. With `--first` only the beginnings of texts are compressed, as if they were short. With `--tune` a
steering vector is trained on each text, and embedded where it pays; with `--tune-chunks` vectors for each chunk, which
brings them where they pay. Articles are held-out documents of the shards in
DIR, which no training saw, a domain for each shard. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import results
from bench.arguments import positive, read_text
from bench.contenders import BUNDLED, model_reference
from bench.results import Figure
from llmzip.archive import compress, decompress
from llmzip.cli.tuning import chunk_trainer, tuned
from llmzip.errors import ExactnessError
from llmzip.format import Method, scan
from llmzip.options import CompressOptions, DecompressOptions

HEADER = (
    "| kind | text | bytes | chunks | none | auto | gain | compress, s: none | auto |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


class Text(NamedTuple):
    """What is compressed."""

    kind: str
    name: str
    raw: bytes


class Gain(NamedTuple):
    """Sizes of a text's archives, the model's chunks in the conditioned one, and how long both took to make."""

    n_raw: int
    none: int
    auto: int
    n_chunks: int
    none_seconds: float
    auto_seconds: float

    @property
    def share(self) -> float:
        """Of the size without conditioners."""
        return 1 - self.auto / self.none

    @property
    def seconds(self) -> str:
        """Both times, for the table."""
        return f"{self.none_seconds:.2f} | {self.auto_seconds:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("conditioner_gain", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    print(*HEADER, sep="\n")
    kinds: dict[str, list[Gain]] = defaultdict(list)
    for text in _texts(chosen):
        gain = _gain(text._replace(raw=text.raw[: chosen.first]), chosen)
        kinds[text.kind].append(gain)
        sizes = f"{gain.n_raw:,} | {gain.n_chunks} | {gain.none:,} | {gain.auto:,} | {gain.share:.2%}"
        print(f"| {text.kind} | {text.name} | {sizes} | {gain.seconds} |", flush=True)
        case = f"{text.kind}/{text.name}"
        yield from (Figure(case, metric, getattr(gain, metric), "bytes") for metric in ("none", "auto"))
        yield Figure(case, "chunks", gain.n_chunks, "")
        yield Figure(case, "time of auto by that of none", gain.auto_seconds / gain.none_seconds, "s/s")
    for kind, gains in kinds.items():
        yield from _summary(kind, gains)


def _summary(kind: str, gains: list[Gain]) -> Iterator[Figure]:
    """Of all texts of a kind: the mean of their gains, and the worst against a byte a chunk."""
    mean = sum(gain.share for gain in gains) / len(gains)
    total = Gain(*(sum(column) for column in zip(*gains, strict=True)))
    excess = max(gain.auto - gain.none - gain.n_chunks for gain in gains)
    sums = f"{total.n_raw:,} | {total.n_chunks} | | | {mean:.2%} | {total.seconds}"
    print(f"| {kind} | mean of {len(gains)} | {sums} |", flush=True)
    yield Figure(f"{kind}: {len(gains)} texts", "mean gain", mean, "")
    yield Figure(f"{kind}: {len(gains)} texts", "gain of the total", total.share, "")
    yield Figure(f"{kind}: {len(gains)} texts", "worst beyond a byte a chunk", excess, "bytes")


def _gain(text: Text, chosen: argparse.Namespace) -> Gain:
    plain = CompressOptions(
        model=model_reference(chosen.model), conditioner="none", threads=chosen.threads, chunk_size=chosen.chunk_size
    )
    steered = replace(plain, conditioner=chosen.policy, conditioners=chosen.conditioners)
    # What is loaded and compiled once is no part of the times.
    compress(text.raw[:1000], steered)
    if chosen.tune_chunks:
        steered = replace(steered, chunk_trainer=chunk_trainer(chosen.tune_chunks, chosen.threads))
    start = time.perf_counter()
    none = compress(text.raw, plain)
    middle = time.perf_counter()
    auto = _tuned(text, steered, chosen.tune)
    seconds = middle - start, time.perf_counter() - middle
    options = DecompressOptions(model=plain.model, conditioners=chosen.conditioners, threads=chosen.threads)
    for conditioner, archive in (("none", none), (chosen.policy, auto)):
        if decompress(archive, options) != text.raw:
            raise ExactnessError(f"{text.name}, {conditioner}: expected the text back, found something else")
    methods = [frame.methods for frame in scan(io.BytesIO(auto))]
    n_chunks = sum(found[Method.MODEL].n_chunks for found in methods if Method.MODEL in found)
    return Gain(len(text.raw), len(none), len(auto), n_chunks, *seconds)


def _tuned(text: Text, options: CompressOptions, seconds: float) -> bytes:
    """An archive of a text, under a conditioner that is trained on it for so long; 0 for none."""
    if not seconds:
        return compress(text.raw, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / text.name
        path.write_bytes(text.raw)
        with tuned(str(path), options, seconds, quiet=False) as final:
            return compress(text.raw, final)


def _texts(chosen: argparse.Namespace) -> Iterator[Text]:
    for name in chosen.files:
        kind, _, path = name.rpartition("=")
        yield Text(kind or "files", Path(path).name, read_text(Path(path)))
    if chosen.data:
        from llmzip_training.shards import read_shards

        for shard in read_shards(chosen.data):
            for i, document in enumerate(shard.held_out[: chosen.articles]):
                yield Text(shard.name, f"document {i}", document.encode())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.conditioner_gain", description="Compare auto with none.")
    add = parser.add_argument
    add("files", nargs="*", metavar="[KIND=]FILE", help="texts")
    add("-D", dest="conditioners", metavar="FILE", help="conditioners; default: the codebook of the model")
    add("--policy", default="auto", help="auto or best; default: auto")
    add("--tune", type=float, default=0.0, metavar="S", help="train a steering vector on each text, S seconds")
    add("--tune-chunks", type=float, default=0.0, metavar="S", help="train vectors for each chunk, S seconds each")
    add("--chunk-size", type=positive, metavar="BYTES", help="of each chunk, at most; default: as the text asks for")
    add("--model", default=BUNDLED, help="default: bundled")
    add("--data", type=Path, metavar="DIR", help="shards whose held-out documents are texts too")
    add("--articles", type=positive, default=20, metavar="N", help="of each shard; default: 20")
    add("--first", type=positive, metavar="BYTES", help="of each text; default: all of it")
    add("--threads", type=positive, metavar="N", help="default: one a core")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
