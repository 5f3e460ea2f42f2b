"""What pruning gains: one selective model as it is, under other cutoffs and budgets, and with nothing dropped.

    python -m bench.pruned_cache --text FILE [--model bundled] [--tokens N] [--lanes 32] [--cutoffs X,X]
                                 [--budgets A/B/C/D,A/B/C/D] [--repeats R] [--threads N]

The same tokens are coded under each setting in one run, and each decodes its own payloads. Where other bytes
come back, nothing is printed and the command ends with status 1. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench import results
from bench.arguments import positive
from bench.coding import Coding
from bench.contenders import BUNDLED, model_reference
from bench.results import Figure
from bench.selection import budgets_of, describe, with_selection
from bench.timing import Spread, interleave
from llmzip.codec import Codec, Tokens
from llmzip.errors import ConfigError, ExactnessError
from llmzip.exact.backend import Backend, Cache, Floats
from llmzip.exact.cpu import SelectiveCpuCache
from llmzip.exact.spec import MAX_CUTOFF, SELECTION_STEPS
from llmzip.exact.transformer import Segment
from llmzip.loading import load_codec
from llmzip.models.artefact import Artefact
from llmzip.options import CompressOptions
from llmzip.windows import Windowing

UNPRUNED = "nothing dropped"
DEFAULT_LANES = 32
# A default window for each lane: what is forgotten grows with the position.
DEFAULT_TOKENS = DEFAULT_LANES * 1024
# No token is longer on average, so this many bytes a token are enough to read.
_BYTES_A_TOKEN = 16
# Of a layer's arrays in the cache, the one that holds F.
_FORGOTTEN = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("pruned_cache", lambda: _measure(chosen), chosen.results)


def variants(
    artefact: Artefact, cutoffs: Sequence[float], budgets: Sequence[tuple[int, ...]]
) -> Mapping[str, Artefact]:
    """The settings to compare, by name: nothing dropped, as the model is, and with one thing changed at a time."""
    unpruned = with_selection(artefact, MAX_CUTOFF / SELECTION_STEPS, ())
    changed = [with_selection(artefact, cutoff=cutoff) for cutoff in cutoffs]
    changed += [with_selection(artefact, budgets=some) for some in budgets]
    named = {UNPRUNED: unpruned, f"as it is: {describe(artefact)}": artefact}
    return named | {describe(variant): variant for variant in changed}


class AttentionClock:
    """A backend whose calls of `selective_attention` are timed; everything else is passed on.

    Attributes:
        seconds: of the calls of all threads, added up.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def selective_attention(self, *arguments: Any) -> Floats:
        """See `llmzip.exact.backend.Backend`."""
        start = time.perf_counter()
        y = self._backend.selective_attention(*arguments)
        seconds = time.perf_counter() - start
        with self._lock:
            self.seconds += seconds
        return y


class SettingCoding(Coding):
    """Chunks of tokens, one a lane, coded by one model under one selection; decoded and compared when it is made.

    Attributes:
        attention: of each run of `decode_by_operations`, the seconds of attention on each thread, in the mean.
    """

    def __init__(self, artefact: Artefact, windowing: Windowing, chunks: Sequence[Tokens], n_threads: int) -> None:
        super().__init__(Codec(artefact, windowing), chunks, len(chunks), n_threads)
        by_operations = Codec(artefact, windowing)
        self._clock = AttentionClock(by_operations.transformer.backend)
        by_operations.transformer.backend, by_operations.transformer.fused = cast("Backend", self._clock), None
        self._by_operations = Coding(by_operations, chunks, len(chunks), n_threads)
        if self._by_operations.payloads != self.payloads:
            raise ExactnessError("encode: expected the same payloads operation by operation, found others")
        self.attention: list[float] = []
        self.decode()
        self.decode_by_operations()
        self.attention.clear()

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values of all lanes, as allocated."""
        cache = _selective(self.codec.transformer.new_cache(len(self.chunks), self.codec.windowing.window))
        return sum(array.nbytes for layer in cache.layers for array in layer)

    @property
    def keys_seen(self) -> float:
        """Keys that the last query of a chunk's first window sees, the mean of layers and chunks."""
        return float(np.mean([last_query_sees(self.codec, tokens) for tokens in self.chunks]))

    def decode_by_operations(self) -> None:
        """`decode` with one call for each operation, so that attention has a time of its own."""
        self._clock.seconds = 0.0
        self._by_operations.decode()
        self.attention.append(self._clock.seconds / self.n_threads)


def last_query_sees(codec: Codec, tokens: Tokens) -> list[int]:
    """Keys that the last query of the first window of `tokens` sees, its own among them, one number a layer."""
    bos = np.array([codec.artefact.spec.bos_id], dtype=np.int32)
    inputs = np.concatenate([bos, tokens[: codec.windowing.window - 1]])
    cache = _selective(codec.transformer.new_cache(1, codec.windowing.window))
    if len(inputs) > 1:
        codec.transformer.hidden(cache, [Segment(0, 0, inputs[:-1])])
    kept = [int((layer[_FORGOTTEN] < cache.selection.cutoff).sum()) for layer in cache.layers]
    # The query's own key takes a free slot, or that of the key it gives up.
    return [min(n + 1, n_slots) for n, n_slots in zip(kept, cache.n_slots, strict=True)]


def _selective(cache: Cache) -> SelectiveCpuCache:
    if not isinstance(cache, SelectiveCpuCache):
        raise ConfigError(f"backend: expected cpu, found one with a {type(cache).__name__}")
    return cache


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    usual = load_codec(CompressOptions(model=model_reference(chosen.model)))
    chunks = _chunks(usual, chosen.text, chosen.tokens, chosen.lanes)
    codings = {
        name: SettingCoding(artefact, usual.windowing, chunks, chosen.threads)
        for name, artefact in variants(usual.artefact, chosen.cutoffs, chosen.budgets).items()
    }
    cases = {
        (name, way): run
        for name, coding in codings.items()
        for way, run in (("encode", coding.encode), ("decode", coding.decode), ("parts", coding.decode_by_operations))
    }
    seconds = interleave({f"{name}: {way}": run for (name, way), run in cases.items()}, chosen.repeats)
    found = {
        name: list(_figures(coding, name, seconds[f"{name}: encode"], seconds[f"{name}: decode"]))
        for name, coding in codings.items()
    }
    amount = f"{sum(map(len, chunks)):,} tokens, {len(chunks)} lanes"
    print(f"{chosen.model}, {chosen.text.name}: {amount}, {usual.windowing}")
    print(f"{results.device()}; {chosen.threads} threads; medians of {chosen.repeats}; decoded and compared\n")
    shares = {name: list(_shares(figures, found[UNPRUNED])) for name, figures in found.items()}
    _print_table("setting", found)
    _print_table(f"share of that with {UNPRUNED}", shares)
    prefix = f"{chosen.model}, {chosen.text.name}"
    rows = [figure for table in (found, shares) for figures in table.values() for figure in figures]
    return [replace(figure, case=f"{prefix}: {figure.case}") for figure in rows]


def _chunks(codec: Codec, text: Path, n_tokens: int, n_lanes: int) -> list[Tokens]:
    """The beginning of a text as chunks of equally many tokens, one a lane."""
    with text.open("rb") as file:
        tokens = codec.tokenise([file.read(_BYTES_A_TOKEN * n_tokens)])[0][:n_tokens]
    size = len(tokens) // n_lanes
    if size < 1:
        raise ConfigError(f"lanes: expected at most {len(tokens)}, one a token, found {n_lanes}")
    return [tokens[i * size : (i + 1) * size] for i in range(n_lanes)]


def _figures(coding: SettingCoding, name: str, encode: Sequence[float], decode: Sequence[float]) -> Iterator[Figure]:
    for metric, seconds in (("encode", encode), ("decode", decode), ("attention in decode", coding.attention)):
        ms = Spread.of(1000 * s / coding.n_tokens for s in seconds)
        yield Figure(name, metric, ms.p50, "ms/token", ms)
    yield Figure(name, "cache", coding.cache_bytes, "bytes")
    yield Figure(name, "keys seen", coding.keys_seen, "keys/layer")
    yield Figure(name, "payload", coding.n_bits / coding.n_tokens, "bits/token")


def _shares(figures: Sequence[Figure], unpruned: Sequence[Figure]) -> Iterator[Figure]:
    """Each figure divided by the same one with nothing dropped."""
    for figure, whole in zip(figures, unpruned, strict=True):
        yield Figure(figure.case, f"{figure.metric} / that with {UNPRUNED}", figure.value / whole.value, "")


def _print_table(title: str, rows: Mapping[str, Sequence[Figure]]) -> None:
    """A row for each setting, a column for each figure."""
    columns = [", ".join(filter(None, (figure.metric.partition(" / ")[0], figure.unit))) for figure in rows[UNPRUNED]]
    print(f"| {title} | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * len(columns))
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(_number(figure) for figure in figures)} |")
    print()


def _number(figure: Figure) -> str:
    return f"{figure.value:,}" if figure.unit == "bytes" else f"{figure.value:.4g}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pruned_cache", description="Measure what pruning gains.")
    add = parser.add_argument
    add("--model", default=BUNDLED, help="name, id or path of a selective model; default: bundled")
    add("--text", type=Path, required=True, metavar="FILE", help="what to code")
    add("--tokens", type=positive, default=DEFAULT_TOKENS, metavar="N", help=f"of it; default: {DEFAULT_TOKENS}")
    add("--lanes", type=positive, default=DEFAULT_LANES, metavar="N", help=f"to decode in; default: {DEFAULT_LANES}")
    add("--cutoffs", type=_numbers, default=[], metavar="X,X", help="in nats, each with the model's budgets")
    add("--budgets", type=_lists, default=[], metavar="A/B,A/B", help="of the layers, or one for all")
    add("--repeats", type=positive, default=3, metavar="R", help="of everything; default: 3")
    add("--threads", type=positive, default=results.n_cores(), metavar="N", help="default: one a core")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _lists(text: str) -> list[tuple[int, ...]]:
    return [budgets_of(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
