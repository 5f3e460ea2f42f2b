"""What the ratio benchmark compares: general compressors at their strongest, and llmzip with a model.

A contender makes a payload from raw bytes and restores them. Restoring may be told how many bytes there
were, and PPMd is not charged for that number; no other opponent needs it.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llmzip.archive import compress, decompress
from llmzip.models.store import StoredModel, find_bundled, find_model
from llmzip.options import CompressOptions, DecompressOptions

BUNDLED = "bundled"
_XZ_PRESET = 9 | lzma.PRESET_EXTREME
_ZSTD_LONG_WINDOW_LOG = 27
_PPMD_MEMORY = 256 << 20
_PPMD_ORDERS = (6, 8, 16)
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
    yield (Contender("zlib -9", lambda raw: zlib.compress(raw, 9), lambda payload, _: zlib.decompress(payload)),)
    yield (Contender("bzip2 -9", lambda raw: bz2.compress(raw, 9), lambda payload, _: bz2.decompress(payload)),)
    yield (
        Contender(
            "xz -9e", lambda raw: lzma.compress(raw, preset=_XZ_PRESET), lambda payload, _: lzma.decompress(payload)
        ),
    )
    yield (Contender("zstd -19", lambda raw: _compress_zstd(raw, 19), _decompress_zstd),)
    yield (
        Contender(
            "zstd -22 --ultra --long",
            lambda raw: _compress_zstd(raw, 22, enable_ldm=True, window_log=_ZSTD_LONG_WINDOW_LOG),
            _decompress_zstd,
        ),
    )
    yield (Contender("brotli -q 11 -w 24", _compress_brotli, _decompress_brotli),)
    yield tuple(_ppmd(variant, order) for variant in "HI" for order in _PPMD_ORDERS)


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


def _compress_zstd(raw: bytes, level: int, **settings: Any) -> bytes:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(raw), **settings)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def _decompress_zstd(payload: bytes, n_raw: int) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_LONG_WINDOW_LOG)
    return decompressor.decompress(payload, max_output_size=n_raw)


def _compress_brotli(raw: bytes) -> bytes:
    import brotli

    return bytes(brotli.compress(raw, quality=11, lgwin=24))


def _decompress_brotli(payload: bytes, _: int) -> bytes:
    import brotli

    return bytes(brotli.decompress(payload))


def _ppmd(variant: str, order: int) -> Contender:
    import pyppmd

    coders = {"H": (pyppmd.Ppmd7Encoder, pyppmd.Ppmd7Decoder), "I": (pyppmd.Ppmd8Encoder, pyppmd.Ppmd8Decoder)}
    make_encoder, make_decoder = coders[variant]

    def encode(raw: bytes) -> bytes:
        encoder = make_encoder(order, _PPMD_MEMORY)
        return bytes(encoder.encode(raw) + encoder.flush())

    def decode(payload: bytes, n_raw: int) -> bytes:
        decoder = make_decoder(order, _PPMD_MEMORY)
        raw = bytearray(decoder.decode(payload, n_raw))
        # A range coder reads ahead of what it decodes: past the end of the payload it may have zeros.
        while len(raw) < n_raw and decoder.needs_input:
            raw += decoder.decode(b"\0", n_raw - len(raw))
        return bytes(raw)

    return Contender(f"PPMd {variant} -o {order}", encode, decode)
