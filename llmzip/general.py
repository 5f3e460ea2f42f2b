"""What codes the parts that no model codes: zstd, LZMA or Brotli, whichever makes least of them. SPEC.md, section 5.1.

LZMA is smaller than zstd on tables, logs and programs, by up to a quarter; Brotli, which knows many words from the
beginning, on short texts.
"""

from __future__ import annotations

from typing import NamedTuple

from llmzip.errors import FormatError, LimitError
from llmzip.format.limits import MAX_DICTIONARY, MAX_ZSTD_WINDOW, MIN_DICTIONARY

ZSTD_LEVEL = 22
_ZSTD_FIRST_BYTE, _BROTLI_FIRST_BYTE = b"\x28", b"\xff"
# Up to this size Brotli is tried: it takes five times as long as LZMA, and its words gain less and less.
_MAX_BROTLI_SIZE = 1 << 18
_BROTLI_WINDOW_BITS = 24
_PRESET = 9
# The beginning of the input decides between the properties.
_SAMPLE_SIZE = 1 << 17


class _Properties(NamedTuple):
    """Of LZMA: bits of the byte before, of the position for literals, of the position for all else."""

    lc: int
    lp: int
    pb: int

    @property
    def byte(self) -> int:
        """As the payload holds them."""
        return (self.pb * 5 + self.lp) * 9 + self.lc


# For text and bytes of no alignment; for words of four bytes.
_TRIED = (_Properties(4, 0, 0), _Properties(3, 0, 2))


def compress_general(raw: bytes) -> bytes:
    """The smallest payload, which is no smaller than `raw` where nothing helps."""
    zstd = compress_zstd(raw)
    if len(zstd) >= len(raw):
        return zstd
    best = min(_TRIED, key=lambda properties: len(_compress_lzma(raw[:_SAMPLE_SIZE], properties)))
    payloads = [zstd, _compress_lzma(raw, best)]
    if len(raw) <= _MAX_BROTLI_SIZE:
        payloads.append(_compress_brotli(raw))
    return min(payloads, key=len)


def decompress_general(payload: bytes, raw_length: int) -> bytes:
    """The inverse of `compress_general`.

    Raises:
        FormatError: the payload is no zstd frame, LZMA stream or Brotli stream of `raw_length` bytes.
    """
    own = {_ZSTD_FIRST_BYTE: _decompress_zstd, _BROTLI_FIRST_BYTE: _decompress_brotli}
    return own.get(payload[:1], _decompress_lzma)(payload, raw_length)


def compress_zstd(raw: bytes) -> bytes:
    """One zstd frame with its content size and no checksum."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, source_size=len(raw), write_content_size=True, write_checksum=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def _decompress_zstd(payload: bytes, raw_length: int) -> bytes:
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size != raw_length:
            raise FormatError(f"zstd payload: expected {raw_length} bytes of content, found {frame.content_size}")
        if frame.window_size > MAX_ZSTD_WINDOW:
            raise LimitError(f"zstd payload: window of at most {MAX_ZSTD_WINDOW} allowed, found {frame.window_size}")
        decompressor = zstandard.ZstdDecompressor()
        return decompressor.decompress(payload, max_output_size=raw_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd payload: {error}") from error


def _compress_brotli(raw: bytes) -> bytes:
    import brotli

    return _BROTLI_FIRST_BYTE + bytes(brotli.compress(raw, quality=11, lgwin=_BROTLI_WINDOW_BITS))


def _decompress_brotli(payload: bytes, raw_length: int) -> bytes:
    import brotli

    decompressor = brotli.Decompressor()
    try:
        # One byte more than there should be, so that a stream that goes on is found.
        raw: bytes = decompressor.process(payload[1:], output_buffer_limit=raw_length + 1)
    except brotli.error as error:
        raise FormatError(f"Brotli payload: {error}") from error
    if len(raw) != raw_length or not decompressor.is_finished():
        raise FormatError(f"Brotli payload: expected {raw_length} bytes and its end, found {len(raw)}")
    return raw


def _compress_lzma(raw: bytes, properties: _Properties) -> bytes:
    import lzma

    stream = lzma.compress(raw, lzma.FORMAT_RAW, filters=[_lzma_filter(properties, len(raw))])
    return bytes([properties.byte]) + stream


def _decompress_lzma(payload: bytes, raw_length: int) -> bytes:
    import lzma

    properties = _read_properties(payload)
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_lzma_filter(properties, raw_length)])
        # One byte more than there should be, so that a stream that goes on is found.
        raw = decompressor.decompress(payload[1:], max_length=raw_length + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"LZMA payload: {error}") from error
    if len(raw) != raw_length or not decompressor.eof or decompressor.unused_data:
        raise FormatError(f"LZMA payload: expected {raw_length} bytes and its end mark, found {len(raw)}")
    return raw


def _read_properties(payload: bytes) -> _Properties:
    byte = payload[0] if payload else 0xFF
    rest, lc = divmod(byte, 9)
    pb, lp = divmod(rest, 5)
    if pb > 4 or lc + lp > 4:
        raise FormatError(f"LZMA payload: expected its properties, found 0x{byte:02x}")
    return _Properties(lc, lp, pb)


def _lzma_filter(properties: _Properties, raw_length: int) -> dict[str, int]:
    """With the dictionary that SPEC.md lays down: the least power of two that holds the content, within limits."""
    import lzma

    dictionary = min(max(1 << (raw_length - 1).bit_length(), MIN_DICTIONARY), MAX_DICTIONARY)
    own = {"lc": properties.lc, "lp": properties.lp, "pb": properties.pb, "dict_size": dictionary}
    return {"id": lzma.FILTER_LZMA1, "preset": _PRESET | lzma.PRESET_EXTREME} | own
