"""General compressors that Python packages bring, at the settings under which they are opponents.

A library makes a payload from raw bytes and restores them. Restoring is told how many bytes there were, and PPMd is not
charged for that number; no other opponent needs it.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

_XZ_PRESET = 9 | lzma.PRESET_EXTREME
_ZSTD_LONG_WINDOW_LOG = 27
_PPMD_MEMORY = 256 << 20
_PPMD_ORDERS = (6, 8, 16)


class Library(NamedTuple):
    """A way to compress bytes.

    Attributes:
        name: with its settings.
        compress: raw bytes to payload.
        decompress: payload and number of raw bytes to raw bytes.
    """

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


class Choice(NamedTuple):
    """Settings of one library, of which only that with the smallest result counts.

    Attributes:
        package: what must be installed.
        variants: at least one.
    """

    package: str
    variants: tuple[Library, ...]


def _compress_zstd(raw: bytes, level: int, **settings: Any) -> bytes:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(raw), **settings)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def _decompress_zstd(payload: bytes, n_raw: int) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_LONG_WINDOW_LOG)
    return decompressor.decompress(payload, max_output_size=n_raw)


def _zstd(name: str, level: int, **settings: Any) -> Choice:
    return Choice(
        "zstandard", (Library(name, functools.partial(_compress_zstd, level=level, **settings), _decompress_zstd),)
    )


def _compress_brotli(raw: bytes) -> bytes:
    import brotli

    return bytes(brotli.compress(raw, quality=11, lgwin=24))


def _decompress_brotli(payload: bytes, _: int) -> bytes:
    import brotli

    return bytes(brotli.decompress(payload))


def _encode_ppmd(raw: bytes, variant: str, order: int) -> bytes:
    import pyppmd

    make = {"H": pyppmd.Ppmd7Encoder, "I": pyppmd.Ppmd8Encoder}[variant]
    encoder = make(order, _PPMD_MEMORY)
    return bytes(encoder.encode(raw) + encoder.flush())


def _decode_ppmd(payload: bytes, n_raw: int, variant: str, order: int) -> bytes:
    import pyppmd

    make = {"H": pyppmd.Ppmd7Decoder, "I": pyppmd.Ppmd8Decoder}[variant]
    decoder = make(order, _PPMD_MEMORY)
    raw = bytearray(decoder.decode(payload, n_raw))
    # A range coder reads ahead of what it decodes: past the end of the payload it may have zeros.
    while len(raw) < n_raw and decoder.needs_input:
        raw += decoder.decode(b"\0", n_raw - len(raw))
    return bytes(raw)


def _ppmd(variant: str, order: int) -> Library:
    encode = functools.partial(_encode_ppmd, variant=variant, order=order)
    decode = functools.partial(_decode_ppmd, variant=variant, order=order)
    return Library(f"PPMd {variant} -o {order}", encode, decode)


# By the names that `--against` takes.
LIBRARIES = {
    "zlib": Choice(
        "",
        (Library("zlib -9", functools.partial(zlib.compress, level=9), lambda payload, _: zlib.decompress(payload)),),
    ),
    "bzip2": Choice(
        "",
        (
            Library(
                "bzip2 -9", functools.partial(bz2.compress, compresslevel=9), lambda payload, _: bz2.decompress(payload)
            ),
        ),
    ),
    "xz": Choice(
        "",
        (
            Library(
                "xz -9e",
                functools.partial(lzma.compress, preset=_XZ_PRESET),
                lambda payload, _: lzma.decompress(payload),
            ),
        ),
    ),
    "zstd-3": _zstd("zstd -3", 3),
    "zstd-19": _zstd("zstd -19", 19),
    "zstd-22": _zstd("zstd -22 --ultra --long", 22, enable_ldm=True, window_log=_ZSTD_LONG_WINDOW_LOG),
    "brotli": Choice("brotli", (Library("brotli -q 11 -w 24", _compress_brotli, _decompress_brotli),)),
    "ppmd": Choice("pyppmd", tuple(_ppmd(variant, order) for variant in "HI" for order in _PPMD_ORDERS)),
}
