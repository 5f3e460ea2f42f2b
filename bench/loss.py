"""What exactness costs: a text's archive against the float model's own loss over the same windows.

`python -m bench.loss --model NAME --float SOURCE [--text FILE] [--bytes N]`. The text is cut, tokenised and
coded as `llmzip compress` does; all payloads are decoded and compared before anything is printed.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import results
from bench.arguments import positive
from bench.coding import Coding
from bench.contenders import model_reference
from bench.engine import DEFAULT_TEXT
from bench.float_model import FloatModel
from bench.results import Figure
from llmzip.chunking import split
from llmzip.defaults import DEFAULT_LANES, default_chunk_size
from llmzip.encoding import GROUP_SIZE
from llmzip.loading import load_codec
from llmzip.options import CompressOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 after an error, which is one line."""
    chosen = _parse(arguments)
    return results.record("loss", lambda: _measure(chosen), chosen.results)


def _measure(chosen: argparse.Namespace) -> Iterator[Figure]:
    options = CompressOptions(model=model_reference(chosen.model))
    codec = load_codec(options)
    raw = chosen.text.read_bytes()[: chosen.bytes]
    spec, window = codec.artefact.spec, codec.windowing.window
    chunks = list(split(io.BytesIO(raw), default_chunk_size(spec, window, min(len(raw), GROUP_SIZE))))
    coding = Coding.of_bytes(codec, chunks, DEFAULT_LANES, options.n_threads)
    coding.decode()
    exact = coding.n_bits / len(raw)
    model = FloatModel(codec.artefact.spec, chosen.float, options.n_threads)
    ideal = model.cost_bits(coding.chunks, codec.windowing) / len(raw)
    case = f"{chosen.model}, {chosen.text.name}, {len(raw)} bytes"
    print(f"{case}: {coding.n_tokens:,} tokens, {len(chunks)} chunks, {codec.windowing}; decoded and compared")
    print(f"payloads                     {exact:.4f} bits per byte")
    print(f"float32 model, ideal coder   {ideal:.4f} bits per byte")
    print(f"payloads cost more by        {100 * (exact / ideal - 1):+.3f} %")
    yield Figure(f"{case}: payloads", "ratio", exact, "bits/byte")
    yield Figure(f"{case}: float32 model, ideal coder", "ratio", ideal, "bits/byte")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loss", description="Compare with the float model's loss.")
    add = parser.add_argument
    add("--model", required=True, help="name, id or path")
    add("--float", type=Path, required=True, metavar="SOURCE", help="the model's Hugging Face folder or GGUF file")
    add("--text", type=Path, default=DEFAULT_TEXT, metavar="FILE", help="what to code; default: the format's text")
    add("--bytes", type=positive, default=100_000, metavar="N", help="of the text, at most; default: 100000")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
