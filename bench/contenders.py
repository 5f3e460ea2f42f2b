"""What the ratio benchmark compares: general compressors at their strongest, and llmzip with a model.

A contender makes a payload from raw bytes and restores them. Restoring may be told how many bytes there
were, and PPMd is not charged for that number; no other opponent needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from llmzip.archive import compress, decompress
from llmzip.bench.libraries import LIBRARIES
from llmzip.models.store import StoredModel, find_bundled, find_model
from llmzip.options import CompressOptions, DecompressOptions

BUNDLED = "bundled"
OPPONENTS = ("zlib", "bzip2", "xz", "zstd-19", "zstd-22", "brotli", "ppmd")
# The first use of a model loads it and compiles its operations; the clock starts after that.
_WARM_UP = b"Of all the things that were said that evening, only one was remembered in the morning. " * 3


class Contender(NamedTuple):
    """A way to compress.

    Attributes:
        name: with its settings.
        compress: raw bytes to payload.
        decompress: payload and number of raw bytes to raw bytes.
        model_size: bytes of the model that decoding needs, 0 without one.
        warm_up: run once before the clock starts.
    """

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]
    model_size: int = 0
    warm_up: Callable[[], object] = bytes


def opponents() -> Iterator[tuple[Contender, ...]]:
    """The general compressors; of the variants in one tuple only the smallest result counts."""
    for name in OPPONENTS:
        yield tuple(Contender(*variant) for variant in LIBRARIES[name].variants)


def llmzip_with(name: str) -> Contender:
    """The program itself with a model by name, id or path; `bundled` is the one in the package.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    model = stored_model(name)
    reference = model_reference(name)

    def restore(archive: bytes, _: int) -> bytes:
        return decompress(archive, DecompressOptions(model=reference))

    def make(raw: bytes) -> bytes:
        return compress(raw, CompressOptions(model=reference))

    return Contender(f"llmzip, {model.name}", make, restore, model.size_bytes, lambda: restore(make(_WARM_UP), 0))


def stored_model(name: str) -> StoredModel:
    """The model that `name` stands for in a benchmark's options."""
    return find_bundled() if name == BUNDLED else find_model(name)


def model_reference(name: str) -> str | None:
    """What `CompressOptions` calls the model."""
    return None if name == BUNDLED else name
