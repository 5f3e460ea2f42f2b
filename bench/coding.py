"""Chunks of one text coded with one model: what benchmarks time, with everything compared that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from llmzip.codec import Codec, Tokens
from llmzip.errors import ExactnessError
from llmzip.lanes import LaneDecoder


class Coding:
    """The way from tokens to payloads and back to bytes.

    Args:
        codec: the model and its windows.
        chunks: tokens, encoded here once.
        n_lanes: chunks that are decoded side by side.
        n_threads: for both ways.

    Attributes:
        raws: the bytes of the chunks.
        payloads: what they were encoded to.
    """

    def __init__(self, codec: Codec, chunks: Sequence[Tokens], n_lanes: int, n_threads: int) -> None:
        self.codec, self.chunks, self.n_threads = codec, chunks, n_threads
        self.raws = [codec.artefact.vocabulary.decode(tokens) for tokens in chunks]
        self._n_lanes = n_lanes
        self._pool = ThreadPoolExecutor(n_threads)
        self.payloads = self._encode()

    @classmethod
    def of_bytes(cls, codec: Codec, raws: Sequence[bytes], n_lanes: int, n_threads: int) -> Coding:
        """The same of chunks of bytes; their tokens must give them back."""
        coding = cls(codec, codec.tokenise(raws), n_lanes, n_threads)
        if coding.raws != list(raws):
            raise ExactnessError(f"tokenise: expected tokens of the bytes of {len(raws)} chunks, found others")
        return coding

    @property
    def n_tokens(self) -> int:
        """Of all chunks."""
        return sum(map(len, self.chunks))

    @property
    def n_raw(self) -> int:
        """Bytes of all chunks."""
        return sum(map(len, self.raws))

    @property
    def n_bits(self) -> int:
        """Of all payloads."""
        return 8 * sum(map(len, self.payloads))

    def encode(self) -> None:
        """Encode all chunks; the payloads must be those of before."""
        if self._encode() != self.payloads:
            raise ExactnessError(f"encode: expected the same {len(self.payloads)} payloads as before, found others")

    def decode(self) -> None:
        """Decode all chunks; the bytes must be theirs."""
        decoder = LaneDecoder(self.codec, self._n_lanes, self.n_threads)
        try:
            pairs = zip(self.payloads, self.raws, strict=True)
            futures = [decoder.submit(payload, len(raw)) for payload, raw in pairs]
            found = [future.result() for future in futures]
        finally:
            decoder.close()
        if found != self.raws:
            raise ExactnessError(f"decode: expected the bytes of {len(self.raws)} chunks back, found others")

    def _encode(self) -> list[bytes]:
        return list(self.codec.encode(self.chunks, self._pool.map))
