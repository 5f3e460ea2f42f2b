"""Which method each part of the input gets: the model, a general compressor, or none.

The model is tried on what looks like text. Chunk by chunk the smaller of model and zstd is taken;
neighbours that the model did not win become one general chunk, and if a general compressor over the whole
group beats all of that (long repeats, tables, binaries), the group becomes one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from llmzip.format import Method
from llmzip.general import compress_general, compress_zstd

# The share of bytes that are no valid UTF-8 above which the model is not even asked: it would spend
# the time of text on data that it cannot predict.
MAX_INVALID_SHARE = 0.1
_RECORD_SIZE = 8
# How much smaller than zstd's the other general compressor's payloads are, at the very most.
_MAX_GENERAL_GAIN = 1.5


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
    """Whether at most a tenth of the bytes are invalid as UTF-8.

    >>> looks_like_text("naïve".encode()), looks_like_text(bytes(range(128, 256)))
    (True, False)
    """
    decoded = raw.decode("utf-8", "surrogateescape")
    n_invalid = sum("\udc80" <= c <= "\udcff" for c in decoded) if not decoded.isascii() else 0
    return n_invalid <= MAX_INVALID_SHARE * len(raw)


def plan(chunks: Sequence[bytes], payloads: Sequence[bytes | None]) -> list[Part]:
    """The cheapest way to code a group of neighbouring chunks.

    Args:
        chunks: the raw bytes, none empty.
        payloads: what the model makes of each; None where it was not asked.

    Returns:
        Parts whose raw bytes join to the chunks'.
    """
    best = [
        Part(Method.MODEL, raw, payload)
        if payload is not None and len(payload) < min(len(raw), len(compress_zstd(raw)))
        else None
        for raw, payload in zip(chunks, payloads, strict=True)
    ]
    parts = list(_merge(chunks, best))
    if len(parts) == 1 and parts[0].method is not Method.MODEL:
        return parts
    cost = sum(part.cost for part in parts)
    whole = b"".join(chunks)
    if len(compress_zstd(whole)) > _MAX_GENERAL_GAIN * cost:
        return parts
    general = _general_part(whole)
    return [general] if general.cost < cost else parts


def _merge(chunks: Sequence[bytes], best: Sequence[Part | None]) -> Iterator[Part]:
    for lost, run in groupby(zip(chunks, best, strict=True), key=lambda pair: pair[1] is None):
        if lost:
            yield _general_part(b"".join(raw for raw, _ in run))
        else:
            yield from (part for _, part in run if part is not None)


def _general_part(raw: bytes) -> Part:
    payload = compress_general(raw)
    return Part(Method.GENERAL, raw, payload) if len(payload) < len(raw) else Part(Method.STORED, raw, raw)
