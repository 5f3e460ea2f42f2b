"""What the engine benchmark runs: one text as tokens, and each way of working through it as a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench.float_model import FloatModel
from bench.floor import Floor
from llmzip import codec as codec_module
from llmzip.codec import Codec, Tokens
from llmzip.errors import ConfigError, ExactnessError
from llmzip.lanes import LaneDecoder

FLOAT, FLOOR, ENCODE, TOKENISE = "float32 transformers", "integer products", "encode", "tokenise"
# A lane decodes at most this many tokens: one lane alone is slow.
LANE_TOKENS = 256


class Case(NamedTuple):
    """Something to time: its name, how much text it works through, and the work."""

    name: str
    n_tokens: int
    n_raw: int
    run: Callable[[], object]


class Workload:
    """A text in tokens, coded with one model on all cores.

    Args:
        codec: the model and its windows.
        text: raw bytes; the first `n_tokens` tokens of it count.
        n_tokens: at most this many.
        n_threads: for every case.
    """

    def __init__(self, codec: Codec, text: bytes, n_tokens: int, n_threads: int) -> None:
        self.codec = codec
        self.tokens: Tokens = codec.tokenise([text])[0][:n_tokens]
        self.raw = codec.artefact.vocabulary.decode(self.tokens)
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads)
        codec.canary()
        self.payload = self._encode([self.tokens])[0]

    @property
    def bits_per_byte(self) -> float:
        """Of the whole text's payload, which `check` decodes."""
        return 8 * len(self.payload) / len(self.raw)

    def check(self) -> None:
        """Decode the whole payload, in one lane, for a chunk is one lane's.

        Raises:
            ExactnessError: other bytes come back.
        """
        self._decode([self.payload], [self.raw])

    def coding_cases(self, model: FloatModel, floor: Floor, rows: Sequence[int]) -> Iterator[Case]:
        """The whole text through the float model, the bare products, the encoder, and the tokenizer.

        With `rows`, the encoder also runs in blocks of so many rows.
        """
        chunks, size = [self.tokens], (len(self.tokens), len(self.raw))
        warm_up = [self.tokens[: self.codec.windowing.window]]
        model.forward(warm_up, self.codec.windowing)
        floor.run(warm_up, self.pool)
        yield Case(FLOAT, *size, lambda: model.forward(chunks, self.codec.windowing))
        yield Case(FLOOR, *size, lambda: floor.run(chunks, self.pool))
        yield Case(ENCODE, *size, lambda: self._encode_again(chunks, [self.payload]))
        for n_rows in rows:
            yield Case(f"{ENCODE}, blocks of {n_rows} rows", *size, self._encode_in_blocks(n_rows))
        yield Case(TOKENISE, *size, lambda: self.codec.tokenise([self.raw]))

    def lane_cases(self, n_lanes: int) -> list[Case]:
        """As many chunks as lanes, encoded, and decoded side by side."""
        size = min(LANE_TOKENS, len(self.tokens) // n_lanes)
        if size < 1:
            raise ConfigError(f"lanes: expected at most {len(self.tokens)}, one a token, found {n_lanes}")
        chunks = [self.tokens[i * size : (i + 1) * size] for i in range(n_lanes)]
        raws = [self.codec.artefact.vocabulary.decode(tokens) for tokens in chunks]
        payloads = self._encode(chunks)
        amount = (n_lanes * size, sum(map(len, raws)))
        return [
            Case(encode_name(n_lanes), *amount, lambda: self._encode_again(chunks, payloads)),
            Case(decode_name(n_lanes), *amount, lambda: self._decode(payloads, raws)),
        ]

    def _encode(self, chunks: Sequence[Tokens]) -> list[bytes]:
        return list(self.codec.encode(chunks, self.pool))

    def _encode_again(self, chunks: Sequence[Tokens], expected: list[bytes]) -> None:
        if self._encode(chunks) != expected:
            raise ExactnessError(f"encode: expected the same {len(expected)} payloads as before, found others")

    def _encode_in_blocks(self, n_rows: int) -> Callable[[], None]:
        def run() -> None:
            usual = codec_module.BLOCK_ROWS
            codec_module.BLOCK_ROWS = n_rows
            try:
                self._encode_again([self.tokens], [self.payload])
            finally:
                codec_module.BLOCK_ROWS = usual

        return run

    def _decode(self, payloads: Sequence[bytes], raws: list[bytes]) -> None:
        decoder = LaneDecoder(self.codec, len(raws), self.n_threads)
        try:
            results = [decoder.submit(payload, len(raw)) for payload, raw in zip(payloads, raws, strict=True)]
            found = [result.result() for result in results]
        finally:
            decoder.close()
        if found != raws:
            raise ExactnessError(f"decode: expected the bytes of {len(raws)} chunks back, found others")


def encode_name(n_lanes: int) -> str:
    """The name of the case that encodes the chunks of as many lanes."""
    return f"encode, {n_lanes} chunk{'s' if n_lanes > 1 else ''}"


def decode_name(n_lanes: int) -> str:
    """The name of the case that decodes them."""
    return f"decode, {n_lanes} lane{'s' if n_lanes > 1 else ''}"
