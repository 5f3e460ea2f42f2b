"""What an archive is made with unless told otherwise: windows, overlaps, chunks, lanes.

Small models, such as the bundled one, are fast and not far-sighted: their windows overlap less, and their chunks are
smaller, so that they fill the lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzip.chunking import DEFAULT_CHUNK_SIZE

if TYPE_CHECKING:
    from llmzip.exact.spec import ModelSpec

# What computes: `auto` is a GPU where there is one.
DEVICES = ("auto", "cpu", "cuda")
DEFAULT_LANES = 64
DEFAULT_WINDOW = 1024
# More processes are a slip of the hand.
MAX_WORKERS = 256
SMALL_WIDTH = 512
# The window over the overlap. On held-out text a quarter saves the bundled model 0.16 %, and takes a third more time.
OVERLAP_SHARE, SMALL_OVERLAP_SHARE = 4, 16
# A chunk begins without context, which costs about as much as a window's beginning: so many windows
# a chunk keep that small. With a small model, chunks of half the size cost 0.2 % and fill the lanes from a megabyte on.
CHUNK_BYTES_A_TOKEN = 64
SMALL_CHUNK_SIZE = 16384
# Bytes of content that are coded before worker processes are worth their start.
LARGE_INPUT = 4 << 20


def is_small(spec: ModelSpec) -> bool:
    """Whether a model is of the kind that is bundled."""
    return spec.width < SMALL_WIDTH


def default_workers(spec: ModelSpec, n_threads: int, *, large: bool) -> int:
    """Worker processes for an input that is `large` or not yet: none for models whose threads keep the cores busy."""
    return n_threads if large and n_threads > 1 and is_small(spec) else 0


def default_window(spec: ModelSpec) -> int:
    """Tokens that the model sees at once: the greatest power of two that it allows, at most 1,024."""
    return min(DEFAULT_WINDOW, 1 << (spec.max_positions.bit_length() - 1))


def default_overlap(spec: ModelSpec, window: int) -> int:
    """Tokens that a window repeats of the text before it."""
    return window // (SMALL_OVERLAP_SHARE if is_small(spec) else OVERLAP_SHARE)


def default_chunk_size(spec: ModelSpec, window: int, n_bytes: int) -> int:
    """Bytes in a chunk, at most, of an input of `n_bytes` (those of its first group)."""
    smallest = SMALL_CHUNK_SIZE if is_small(spec) else DEFAULT_CHUNK_SIZE
    filling = max(smallest, min(DEFAULT_CHUNK_SIZE, n_bytes // DEFAULT_LANES))
    return min(CHUNK_BYTES_A_TOKEN * window, filling)
