"""A yardstick: the float model asked for one token after the other, each time with all the text before it.

    python -m bench.naive --text FILE [--model bundled] [--tokens 256] [--lanes 1,8,64] [--float SOURCE] [--repeats 3]

That is how a language model compresses in the fewest lines of code: a whole forward pass of torch in float32 for each
token, the same for decoding. The coder itself is left out and takes no time. The weights are those of the artefact,
int8 times scale, or with `--float` those that it was made of. llmzip codes the same tokens in the same windows on the
same cores, side by side; docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import results
from bench.arguments import positive, positives, read_text
from bench.coding import Coding
from bench.contenders import BUNDLED, model_reference
from bench.float_model import FloatModel
from bench.results import Figure
from bench.timing import Spread, interleave
from llmzip.codec import Codec, Tokens
from llmzip.errors import ConfigError, ExactnessError
from llmzip.loading import load_codec
from llmzip.options import CompressOptions
from llmzip.windows import Windowing

NAIVE = "float32, a pass a token"
HEADER = ("| case | ms/token | KB/s | times the first |", "| --- | ---: | ---: | ---: |")
# Float sums in other orders; a wrong context would cost whole bits.
_TOLERANCE = 1e-3
# Activations are rounded in the exact engine and keys may be pruned; another model's weights would cost far more.
_EXACT_TOLERANCE = 0.02
# Of a payload, beside the bits of its tokens: at most two words at its end.
_END_BITS = 64


def cost_bits(model: FloatModel, tokens: Tokens, windowing: Windowing) -> float:
    """What an ideal coder would write of one chunk, token by token, each by a forward pass of its own."""
    bits = 0.0
    for window in windowing.cover(len(tokens)):
        for place in range(window.coded, window.stop):
            logits = model.next_logits(tokens[window.start : place])
            bits += float(logits.logsumexp(0) - logits[int(tokens[place])]) / math.log(2)
    return bits


def check(model: FloatModel, tokens: Tokens, windowing: Windowing) -> float:
    """The naive cost of a chunk; it must be that of whole windows.

    Raises:
        ExactnessError: it is another one.
    """
    found, expected = cost_bits(model, tokens, windowing), model.cost_bits([tokens], windowing)
    if not math.isclose(found, expected, rel_tol=_TOLERANCE):
        raise ExactnessError(f"naive: expected {expected:.1f} bits as by whole windows, found {found:.1f}")
    return found


def check_exact(bits: float, payload_bits: int) -> None:
    """The float model must predict what the exact engine predicts, but for rounding.

    Raises:
        ExactnessError: one of them costs more than the other by more than rounding.
    """
    if abs(payload_bits - bits) > _EXACT_TOLERANCE * bits + _END_BITS:
        raise ExactnessError(f"naive: expected about the {payload_bits} bits of the payload, found {bits:.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    return results.record("naive", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> list[Figure]:
    codec = load_codec(CompressOptions(model=model_reference(chosen.model), conditioner="none", device="cpu"))
    n_threads = results.n_cores()
    codings = dict(_codings(codec, chosen, n_threads))
    (tokens,) = codings[1].chunks
    model = FloatModel(codec.artefact.spec, chosen.float or codec.artefact, n_threads)
    bits = check(model, tokens, codec.windowing)
    check_exact(bits, codings[1].n_bits)
    cases: dict[str, Callable[[], object]] = {NAIVE: lambda: cost_bits(model, tokens, codec.windowing)}
    n_tokens, n_raw = {NAIVE: len(tokens)}, {NAIVE: codings[1].n_raw}
    for n, coding in codings.items():
        coding.decode()  # compiles, and compares
        for name, run in ((f"encode, {n} chunks", coding.encode), (f"decode, {n} lanes", coding.decode)):
            cases[name], n_tokens[name], n_raw[name] = run, coding.n_tokens, coding.n_raw
    seconds = interleave(cases, chosen.repeats)
    print(f"{chosen.model}, {chosen.text.name}: chunks of {len(tokens)} tokens")
    print(f"{results.device()}; medians of {chosen.repeats}; llmzip's decoded and compared\n")
    found = {case: list(_figures(case, seconds[case], n_tokens[case], n_raw[case])) for case in cases}
    print(*HEADER, *(_row(case, figures, found[NAIVE]) for case, figures in found.items()), sep="\n")
    figures = [figure for of_case in found.values() for figure in of_case]
    rates = {NAIVE: bits / codings[1].n_raw, "payload": codings[1].n_bits / codings[1].n_raw}
    print("", *(f"{name}: {rate:.3f} bits per byte" for name, rate in rates.items()), sep="\n")
    figures.append(Figure(NAIVE, "cost", rates[NAIVE], "bits/byte"))
    figures.append(Figure("payload", "ratio", rates["payload"], "bits/byte"))
    prefix = f"{chosen.model}, {chosen.text.name}, {len(tokens)} tokens a chunk"
    return [replace(figure, case=f"{prefix}: {figure.case}") for figure in figures]


def _codings(codec: Codec, chosen: argparse.Namespace, n_threads: int) -> Iterator[tuple[int, Coding]]:
    """One chunk, and as many as each number of lanes asks for, of equal numbers of tokens."""
    n_most = max(chosen.lanes) * chosen.tokens
    # No token has more bytes than this on average, in any text worth measuring.
    tokens = codec.tokenise([read_text(chosen.text, 16 * n_most)])[0]
    if len(tokens) < n_most:
        raise ConfigError(f"{chosen.text}: expected {n_most} tokens for {max(chosen.lanes)} lanes, found {len(tokens)}")
    for n in sorted({1, *chosen.lanes}):
        chunks = [tokens[i * chosen.tokens : (i + 1) * chosen.tokens] for i in range(n)]
        yield n, Coding(codec, chunks, n, n_threads)


def _figures(case: str, seconds: Sequence[float], n_tokens: int, n_raw: int) -> Iterator[Figure]:
    spread = Spread.of(1000 * one / n_tokens for one in seconds)
    yield Figure(case, "time", spread.p50, "ms/token", spread)
    speed = Spread.of(n_raw / 1000 / one for one in seconds)
    yield Figure(case, "speed", speed.p50, "KB/s", speed)


def _row(case: str, figures: Sequence[Figure], naive: Sequence[Figure]) -> str:
    time, speed = (figure.value for figure in figures)
    return f"| {case} | {time:.3g} | {speed:.3g} | {naive[0].value / time:.1f} |"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.naive", description="Compare with a naive coder.")
    add = parser.add_argument
    add("--text", type=Path, required=True, metavar="FILE", help="what to code")
    add("--model", default=BUNDLED, help="name, id or path; default: bundled")
    add("--tokens", type=positive, default=256, metavar="N", help="of a chunk; default: 256")
    add("--lanes", type=positives, default=[1, 8, 64], metavar="N,N", help="chunks at once; default: 1,8,64")
    add("--float", type=Path, metavar="SOURCE", help="the model that it was made of; default: the artefact")
    add("--repeats", type=positive, default=3, metavar="R", help="of everything; default: 3")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
