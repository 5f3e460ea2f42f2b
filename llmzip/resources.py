"""How threads, lanes and memory are shared out: what runs in this process, and what in workers.

Memory is estimated, from above; `bench.memory` holds the estimates against what the program takes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from llmzip.defaults import default_workers
from llmzip.errors import ConfigError, LimitError

if TYPE_CHECKING:
    from llmzip.codec import Codec
    from llmzip.format import ChunkPlace
    from llmzip.options import CodingOptions, DecompressOptions

_MIB = 1 << 20
# The interpreter; with the libraries and the compiled code that a model needs; and what general compressors and
# tokens take at once beside the chunks that they work on.
BARE_PROGRAM = 56 * _MIB
PROGRAM = 176 * _MIB
COMPRESSORS = 144 * _MIB
# A thread that encodes: logits, activations, frequencies that wait for the entropy coder.
ENCODING_THREAD = 24 * _MIB
# An artefact as it is read, and as the backend lays it out.
_COPIES = 9 / 4
# What a chunk takes that is decoded, with its payload, its decoder's dictionary, and those that wait for their turn; as
# multiples of the longest chunk, and that as a share of what is allowed where a model takes the rest.
_CHUNK_COPIES = 4
_CHUNK_SHARE = 32


class Share(NamedTuple):
    """What to use.

    Attributes:
        n_workers: processes; none where this one does the work.
        n_threads: of each process.
        n_lanes: of each process.
    """

    n_workers: int
    n_threads: int
    n_lanes: int


def share_out(codec: Codec, options: CodingOptions, *, encode: bool, large: bool) -> Share:
    """What to use for one codec within the options: fewer lanes, threads and workers where memory asks for it.

    Args:
        codec: what codes.
        options: what there is.
        encode: whether chunks are encoded; else decoded.
        large: whether there is more content than is coded without workers by default.

    Raises:
        ConfigError: the memory is not enough for anything.
    """
    n_wanted = _wanted_workers(codec, options, large=large)
    unit = _unit(codec, encode=encode)
    for n_workers in range(n_wanted, -1, -1):
        # One process that only waits for another is no help.
        if n_workers == 1 < n_wanted:
            continue
        n_units = _memory_of_units(codec, options, n_workers, encode=encode) // unit
        if n_units > 0:
            n_threads = max(1, options.n_threads // max(1, n_workers))
            if codec.backend.name == "cuda":
                # One device steps through all lanes at once; while it evaluates windows, a second thread brings more.
                n_threads = min(n_threads, 2) if encode else 1
            n_lanes = max(1, options.n_lanes // max(1, n_workers))
            if encode:
                return Share(n_workers, min(n_threads, n_units), n_lanes)
            return Share(n_workers, n_threads, min(n_lanes, n_units))
    assert options.memory is not None
    need = _process(codec, encode=encode) + unit + _feeding(codec, encode=encode)
    # What decodes leaves a share to chunks.
    raise _too_little(need if encode else need * _CHUNK_SHARE // (_CHUNK_SHARE - _CHUNK_COPIES), options.memory)


def check_model(n_bytes: int, options: CodingOptions) -> None:
    """Refuse a model that cannot fit, before it is read.

    Args:
        n_bytes: of its artefact.
        options: what is allowed.

    Raises:
        ConfigError: so it is.
    """
    need = PROGRAM + int(_COPIES * n_bytes)
    if options.memory is not None and need > options.memory:
        raise _too_little(need, options.memory)


def largest_held(options: CodingOptions, limit: int) -> int:
    """Bytes of decoded chunks that may wait for their turn, at most `limit`."""
    return limit if options.memory is None else min(limit, options.memory // _CHUNK_SHARE)


def check_size(n_bytes: int, options: DecompressOptions, offset: int | None = None) -> None:
    """Refuse more content than is allowed.

    Args:
        n_bytes: of content that would be made.
        options: what is allowed.
        offset: where in the archive the first byte too many stands, if it is known.

    Raises:
        LimitError: so it is.
    """
    if options.max_size is not None and n_bytes > options.max_size:
        message = f"at most {options.max_size} allowed, found {n_bytes}"
        raise LimitError(message, field="content under --max-size", offset=offset, need=options.max_size, have=n_bytes)


def check_chunk(place: ChunkPlace, options: CodingOptions, *, with_model: bool) -> None:
    """Refuse a chunk that takes more memory than is allowed, before its payload is read.

    Args:
        place: where it stands, and its record.
        options: what is allowed.
        with_model: a model takes the rest; else all is there for chunks.

    Raises:
        LimitError: so it does.
    """
    if options.memory is None:
        return
    alone = max(0, options.memory - BARE_PROGRAM) // _CHUNK_COPIES
    limit = options.memory // _CHUNK_SHARE if with_model else alone
    if place.record.raw_length > limit:
        raise LimitError.above("chunk length under --memory", place.offset, limit, place.record.raw_length)


def _wanted_workers(codec: Codec, options: CodingOptions, *, large: bool) -> int:
    if codec.conditioning.trainer is not None:
        return 0
    if options.workers is not None:
        return options.workers
    # A program that was packed into one file is no interpreter that could start another.
    alone = not sys.executable or getattr(sys, "frozen", False)
    alone = alone or codec.backend.name == "cuda"
    return 0 if alone else default_workers(codec.artefact.spec, options.n_threads, large=large)


def _memory_of_units(codec: Codec, options: CodingOptions, n_workers: int, *, encode: bool) -> int:
    """What is left for the lanes of a process, or its threads that encode."""
    if options.memory is None:
        return sys.maxsize
    left = options.memory - _process(codec, encode=encode)
    if not encode:
        left -= _CHUNK_COPIES * (options.memory // _CHUNK_SHARE)
    if n_workers:
        return left // n_workers - _process(codec, encode=False)
    return left - _feeding(codec, encode=encode)


def _process(codec: Codec, *, encode: bool) -> int:
    """Memory of a process without lanes."""
    return PROGRAM + int(_COPIES * codec.artefact.n_bytes) + (COMPRESSORS if encode else 0)


def _unit(codec: Codec, *, encode: bool) -> int:
    """Memory of a lane, or of a thread that encodes."""
    lane = codec.transformer.new_cache(1, codec.windowing.window).n_bytes
    return lane + (ENCODING_THREAD if encode else 0)


def _feeding(codec: Codec, *, encode: bool) -> int:
    """Memory of the thread that gives windows to those that encode: it compares choices by encoding samples itself."""
    return _unit(codec, encode=True) if encode and codec.conditioning.samples else 0


def _too_little(need: int, have: int) -> ConfigError:
    return ConfigError(f"memory: expected at least {-(-need // _MIB)} MiB for this model, found {have / _MIB:.1f}")
