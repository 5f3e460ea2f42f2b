from __future__ import annotations

import contextlib
import lzma

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import FormatError
from llmzip.general import compress_general, compress_zstd, decompress_general

TABLE = b"".join(n.to_bytes(4, "little") + (n * n).to_bytes(4, "little") for n in range(5000))


def _lzma(raw: bytes, properties: int = 4, dictionary: int = 4096, preset: int = 9) -> bytes:
    own = {"id": lzma.FILTER_LZMA1, "preset": preset, "lc": 4, "lp": 0, "pb": 0, "dict_size": dictionary}
    return bytes([properties]) + lzma.compress(raw, lzma.FORMAT_RAW, filters=[own])


def _brotli(raw: bytes) -> bytes:
    return b"\xff" + bytes(brotli.compress(raw))


@given(st.binary(max_size=500) | st.text(alphabet="ab\n", max_size=500).map(str.encode))
def test_both_compressors_give_the_bytes_back(raw: bytes) -> None:
    """With their length as the record has it; the smaller of both is taken."""
    assert decompress_general(compress_zstd(raw), len(raw)) == raw
    payload = compress_general(raw)
    assert decompress_general(payload, len(raw)) == raw
    assert len(payload) <= len(compress_zstd(raw))


def test_a_table_is_coded_by_lzma_with_properties_of_its_own() -> None:
    """In fewer bytes than by zstd, and by other properties than text is."""
    payload = compress_general(TABLE)
    assert len(payload) < 0.9 * len(compress_zstd(TABLE))
    assert decompress_general(payload, len(TABLE)) == TABLE
    assert payload[0] == (2 * 5 + 0) * 9 + 3
    prose = b"".join(b"In the year %d the town had %d inhabitants.\n" % (n, n * n) for n in range(9000))
    assert compress_general(prose)[0] == 4


def test_a_short_text_is_coded_by_brotli() -> None:
    """Which knows English words from the beginning."""
    text = b"The committee shall report to the president about the state of the environment.\n"
    payload = compress_general(text)
    assert payload[0] == 0xFF
    assert len(payload) < 0.8 * len(compress_zstd(text))
    assert decompress_general(payload, len(text)) == text


def test_a_stream_needs_no_larger_dictionary_than_the_content() -> None:
    """What an encoder with another preset writes within the dictionary of the specification decodes."""
    raw = TABLE[:6000]
    assert decompress_general(_lzma(raw, dictionary=8192, preset=1), 6000) == raw


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no frame at all",
        compress_zstd(b"hello")[:-1],
        compress_zstd(b"hello") + b"\0",
        compress_zstd(b"hello") * 2,
        compress_zstd(b"hello!"),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"hello"),
        _lzma(b"hello")[:-1],
        _lzma(b"hello") + b"\0",
        _lzma(b"hello!"),
        _lzma(b"hell"),
        _lzma(b"hello")[:1],
        _lzma(b"hello", properties=0xFF),
        _lzma(b"hello", properties=4 * 9 + 3),
        _lzma(bytes(1 << 20)),
        _brotli(b"hello")[:-1],
        _brotli(b"hello") + b"\0",
        _brotli(b"hello!"),
        _brotli(b"hell"),
        _brotli(bytes(1 << 20)),
        b"\xff",
    ],
)
def test_other_than_one_stream_of_the_length_is_refused(payload: bytes) -> None:
    """Cut, appended, doubled, of another length, of none, or of impossible properties."""
    with pytest.raises(FormatError, match=r"^(zstd|LZMA|Brotli) payload: "):
        decompress_general(payload, 5)


@given(st.binary(max_size=60), st.integers(1, 300))
def test_any_bytes_decode_or_are_refused(payload: bytes, raw_length: int) -> None:
    """To as many bytes as the record says."""
    with contextlib.suppress(FormatError):
        assert len(decompress_general(payload, raw_length)) == raw_length


def test_a_frame_that_promises_too_much_takes_no_memory() -> None:
    """The promised size is compared before it is taken."""
    with pytest.raises(FormatError, match="expected 5 bytes"):
        decompress_general(compress_zstd(bytes(1 << 20)), 5)
