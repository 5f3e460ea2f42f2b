"""What the engine benchmark runs: one text as tokens, and each way of working through it as a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench.coding import Coding
from bench.float_model import FloatModel
from bench.floor import Floor
from llmzip.codec import Codec, Tokens
from llmzip.errors import ConfigError

FLOAT, FLOOR, ENCODE, TOKENISE = "float32 model", "integer products", "encode", "tokenise"
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
        self._whole = Coding(codec, [self.tokens], 1, n_threads)

    @property
    def bits_per_byte(self) -> float:
        """Of the whole text's payload, which `check` decodes."""
        return self._whole.n_bits / len(self.raw)

    def check(self) -> None:
        """Decode the whole payload, in one lane, for a chunk is one lane's.

        Raises:
            ExactnessError: other bytes come back.
        """
        self._whole.decode()

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
        yield Case(ENCODE, *size, self._whole.encode)
        for n_rows in rows:
            yield Case(f"{ENCODE}, blocks of {n_rows} rows", *size, self._encode_in_blocks(n_rows))
        yield Case(TOKENISE, *size, lambda: self.codec.tokenise([self.raw]))

    def lane_cases(self, n_lanes: int) -> list[Case]:
        """As many chunks as lanes, encoded, and decoded side by side."""
        size = min(LANE_TOKENS, len(self.tokens) // n_lanes)
        if size < 1:
            raise ConfigError(f"lanes: expected at most {len(self.tokens)}, one a token, found {n_lanes}")
        chunks = [self.tokens[i * size : (i + 1) * size] for i in range(n_lanes)]
        coding = Coding(self.codec, chunks, n_lanes, self.n_threads)
        return [
            Case(encode_name(n_lanes), coding.n_tokens, coding.n_raw, coding.encode),
            Case(decode_name(n_lanes), coding.n_tokens, coding.n_raw, coding.decode),
        ]

    def _encode_in_blocks(self, n_rows: int) -> Callable[[], None]:
        def run() -> None:
            usual = self.codec.sizes
            self.codec.sizes = usual._replace(rows=n_rows)
            try:
                self._whole.encode()
            finally:
                self.codec.sizes = usual

        return run


def encode_name(n_lanes: int) -> str:
    """The name of the case that encodes the chunks of as many lanes."""
    return f"encode, {n_lanes} chunk{'s' if n_lanes > 1 else ''}"


def decode_name(n_lanes: int) -> str:
    """The name of the case that decodes them."""
    return f"decode, {n_lanes} lane{'s' if n_lanes > 1 else ''}"
