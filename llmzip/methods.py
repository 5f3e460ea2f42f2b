"""Which method each part of the input gets: the model, a general compressor, or none.

The model is tried on what looks like text. Chunk by chunk the smaller of model and zstd is taken;
neighbours that the model did not win become one general chunk, and if a general compressor over the whole
group beats all of that (long repeats, tables, binaries), the group becomes one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from llmzip.format import Method
from llmzip.format.chunk_record import longest_model_chunk
from llmzip.general import compress_general, compress_zstd

# The share of bytes that are no valid UTF-8, or characters that no text has, above which the model is not even asked:
# it would spend the time of text, or more, on data that it cannot predict.
MAX_INVALID_SHARE = 0.1
_NO_TEXT = bytes({*range(32), 127} - {*b"\t\n\v\f\r\b\x1b"})
_RECORD_SIZE = 8
# What a frame of several chunks has beside their records.
_TRAILER_SIZE = 32
_HEAD_SIZES = (256, 512, 1024, 2048, 4096)
# How much smaller than zstd's the other general compressor's payloads are, at the very most.
_MAX_GENERAL_GAIN = 1.5


Apply = Callable[[Callable[[bytes], int], Sequence[bytes]], Iterable[int]]


class Part(NamedTuple):
    """A chunk to be: its method, its bytes, and what codes them."""

    method: Method
    raw: bytes
    payload: bytes

    @property
    def cost(self) -> int:
        """Bytes in the archive, its record estimated."""
        return _RECORD_SIZE + min(len(self.payload), len(self.raw))


def looks_like_text(raw: bytes) -> bool:
    """Whether at most a tenth of the bytes are invalid as UTF-8, or control characters but those for layout.

    >>> looks_like_text("naïve".encode()), looks_like_text(bytes(range(128, 256))), looks_like_text(bytes(9))
    (True, False, False)
    """
    decoded = raw.decode("utf-8", "surrogateescape")
    n_invalid = sum("\udc80" <= c <= "\udcff" for c in decoded) if not decoded.isascii() else 0
    n_invalid += len(raw) - len(raw.translate(None, _NO_TEXT))
    return n_invalid <= MAX_INVALID_SHARE * len(raw)


def plan(chunks: Sequence[bytes], payloads: Sequence[bytes | None], apply: Apply = map) -> list[Part]:
    """The cheapest way to code a group of neighbouring chunks.

    Args:
        chunks: the raw bytes, none empty.
        payloads: what the model makes of each; None where it was not asked.
        apply: `map`, or that of a pool of threads.

    Returns:
        Parts whose raw bytes join to the chunks'.
    """
    whole = b"".join(chunks)
    if all(payload is None for payload in payloads):
        return _general_parts(whole)
    zstd_whole, *zstd_chunks = apply(_zstd_size, [whole, *chunks])
    best = [
        Part(Method.MODEL, raw, payload) if payload is not None and _wins(payload, raw, zstd_size) else None
        for raw, payload, zstd_size in zip(chunks, payloads, zstd_chunks, strict=True)
    ]
    parts = list(_merge(chunks, best))
    if not any(best) or zstd_whole > _MAX_GENERAL_GAIN * _cost(parts):
        return parts
    return min(parts, _general_parts(whole), key=_cost)


def _wins(payload: bytes, raw: bytes, zstd_size: int) -> bool:
    """Whether a model's payload is smaller than all else, and one that the format allows."""
    return len(payload) < min(len(raw), zstd_size) and len(raw) <= longest_model_chunk(len(payload))


def _zstd_size(raw: bytes) -> int:
    return len(compress_zstd(raw))


def _merge(chunks: Sequence[bytes], best: Sequence[Part | None]) -> Iterator[Part]:
    for lost, run in groupby(zip(chunks, best, strict=True), key=lambda pair: pair[1] is None):
        if lost:
            yield from _general_parts(b"".join(raw for raw, _ in run))
        else:
            yield from (part for _, part in run if part is not None)


def _general_parts(raw: bytes) -> list[Part]:
    """One part, or two where only the head of the bytes can be made smaller, as in pictures and packages."""
    payload = compress_general(raw)
    if len(payload) < len(raw):
        return [Part(Method.GENERAL, raw, payload)]
    stored = [Part(Method.STORED, raw, raw)]
    heads = [Part(Method.GENERAL, raw[:n], compress_general(raw[:n])) for n in _HEAD_SIZES if n < len(raw)]
    if not heads:
        return stored
    head = min(heads, key=lambda part: len(part.payload) - len(part.raw))
    rest = raw[len(head.raw) :]
    split = [head, Part(Method.STORED, rest, rest)]
    return split if _cost(split) + _TRAILER_SIZE < _cost(stored) else stored


def _cost(parts: Sequence[Part]) -> int:
    return sum(part.cost for part in parts)
