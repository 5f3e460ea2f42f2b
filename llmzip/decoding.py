"""Chunks of an archive back to bytes: in lanes, in order, each held against its check."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO

from llmzip.errors import FormatError
from llmzip.format import FrameIndex, Header, Method
from llmzip.loading import check_place
from llmzip.model_decoders import ModelDecoders
from llmzip.options import DecompressOptions
from llmzip.resources import check_size, largest_held

if TYPE_CHECKING:
    from llmzip.format import ChunkPlace, ChunkRecord

# How far decoding runs ahead of what is written: chunks a lane, and bytes.
LANES_AHEAD = 2
MAX_HELD = 64 << 20


def read_range(
    source: BinaryIO,
    start: int,
    stop: int,
    options: DecompressOptions,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[bytes]:
    """The bytes `[start, stop)` of the content, decoding only the chunks that hold them.

    Args:
        source: an archive that can seek.
        start: first byte, from 0.
        stop: first byte no longer wanted; what lies beyond the end is not there.
        options: where to find the model.
        warn: told of damage outside of what is wanted, such as a missing index.

    Raises:
        FormatError: what is wanted is damaged, or lies behind damage.
    """
    index = FrameIndex(source, tolerant=True)
    check_size(min(stop, index.raw_length) - start, options)
    if index.damage is not None:
        warn(f"damaged behind byte {index.raw_length} of the content, read without its index: {index.damage}")
    yield from decode_range(index, start, min(stop, index.raw_length), options)
    if index.damage is not None and stop > index.raw_length:
        raise index.damage


def decode_range(
    index: FrameIndex, start: int, stop: int, options: DecompressOptions, decoders: ModelDecoders | None = None
) -> Iterator[bytes]:
    """The bytes `[start, stop)` of the content by an index, a piece for each chunk.

    Args:
        index: of the archive.
        start: first byte.
        stop: first byte no longer wanted.
        options: where to find the model.
        decoders: to be used and left open, where there are several ranges.

    Raises:
        FormatError: a chunk is damaged.
    """

    def check(header: Header, place: ChunkPlace) -> None:
        check_place(header, place, options)

    for place, raw in decode_chunks(index.chunks(start, stop, check), options, decoders):
        yield raw[max(0, start - place.raw_offset) : stop - place.raw_offset]


def decode_chunks(
    chunks: Iterator[tuple[Header, ChunkPlace, bytes]],
    options: DecompressOptions,
    decoders: ModelDecoders | None = None,
) -> Iterator[tuple[ChunkPlace, bytes]]:
    """Decode chunks in lanes and check them; they come back in order, a bounded number ahead.

    Raises:
        FormatError: a chunk is damaged.
    """
    for place, raw in decode_each(chunks, options, decoders):
        if isinstance(raw, FormatError):
            raise raw
        yield place, raw


def decode_each(
    chunks: Iterator[tuple[Header, ChunkPlace, bytes]],
    options: DecompressOptions,
    decoders: ModelDecoders | None = None,
) -> Iterator[tuple[ChunkPlace, bytes | FormatError]]:
    """As `decode_chunks`, but of a damaged chunk the error comes in its place."""
    pending: deque[tuple[ChunkPlace, bytes, Future[bytes]]] = deque()
    n_held, max_held = 0, largest_held(options, MAX_HELD)
    with nullcontext(decoders) if decoders else ModelDecoders(options) as decoders:
        for header, place, payload in chunks:
            record = place.record
            if record.method is Method.MODEL:
                result = _submitted(decoders, header, payload, record.raw_length)
            else:
                result = _decoded(record, payload)
            pending.append((place, payload, result))
            del payload, result
            n_held += record.raw_length
            while pending and (
                pending[0][2].done() or len(pending) > LANES_AHEAD * options.n_lanes or n_held > max_held
            ):
                n_held -= pending[0][0].record.raw_length
                yield _checked(*pending.popleft())
        while pending:
            yield _checked(*pending.popleft())


def _submitted(decoders: ModelDecoders, header: Header, payload: bytes, raw_length: int) -> Future[bytes]:
    """What decodes a model's chunk; what is wrong with its header is wrong with the chunk."""
    try:
        return decoders.submit(header, payload, raw_length)
    except FormatError as error:
        result: Future[bytes] = Future()
        result.set_exception(error)
        return result


def _decoded(record: ChunkRecord, payload: bytes) -> Future[bytes]:
    """The bytes of a chunk that needs no model."""
    from llmzip.general import decompress_general

    result: Future[bytes] = Future()
    try:
        raw = decompress_general(payload, record.raw_length) if record.method is Method.GENERAL else payload
        result.set_result(raw)
    except FormatError as error:
        result.set_exception(error)
    return result


def _checked(place: ChunkPlace, payload: bytes, result: Future[bytes]) -> tuple[ChunkPlace, bytes | FormatError]:
    try:
        raw = result.result()
    except FormatError as error:
        return place, type(error)(f"chunk: {error}", offset=place.offset)
    try:
        place.record.verify(raw, payload, place.offset)
    except FormatError as error:
        return place, error
    return place, raw
