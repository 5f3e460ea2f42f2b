from __future__ import annotations

import codecs
import dataclasses
import io
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import llmzip.encoding
from llmzip.archive import compress, compress_stream, decompress
from llmzip.codec import Codec
from llmzip.decoding import read_range
from llmzip.errors import (
    ConfigError,
    FormatError,
    LlmzipError,
    ModelMismatchError,
    ModelNotFoundError,
    TruncatedError,
)
from llmzip.format import FrameIndex, Method, read_frames
from llmzip.format.header import crc8
from llmzip.models import store
from llmzip.models.store import StoredModel
from llmzip.options import CompressOptions, DecompressOptions

pytestmark = pytest.mark.usefixtures("tiny_model")

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=600, threads=1)
DECODE = DecompressOptions(threads=1, lanes=5)
RANDOM = random.Random(1).randbytes(3000)
CONTENTS = {
    "empty": b"",
    "one byte": b"x",
    "a NUL": b"\0",
    "all bytes": bytes(range(256)),
    "random": RANDOM,
    "no UTF-8": b"\xff\xfe\x80 caf\xc3 \xa9" * 40,
    "CRLF": b"one\r\ntwo\r\n\r\nthree\n\r" * 50,
    "NULs": b"\0" * 1000,
    "byte order marks": codecs.BOM_UTF8 + b"def f():\n" + codecs.BOM_UTF16_LE + "naïve – ☃ 𝄞".encode(),
    "special tokens": b"<|endoftext|>def <|endoftext|><s></s>" * 9,
    "line of spaces": b" " * 5000 + b"\n",
    "repeats": b"for text in lines:\n    yield text\n" * 300,
}


@pytest.fixture(scope="module")
def archive(tiny_home: Path, sample_text: bytes) -> Iterator[bytes]:
    """One small archive with chunks of all three methods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_HOME", str(tiny_home))
        yield compress(sample_text[:1100] + RANDOM[:400] + bytes(1500) + sample_text[2000:2300], OPTIONS)


def _methods(archive: bytes) -> list[Method]:
    return [place.record.method for frame in read_frames(io.BytesIO(archive)) for place in frame.places()]


@pytest.mark.parametrize("name", CONTENTS)
def test_content_comes_back(name: str) -> None:
    """Whatever the bytes are."""
    content = CONTENTS[name]
    archive = compress(content, OPTIONS)
    assert decompress(archive, DECODE) == content


def test_text_is_coded_by_the_model(sample_text: bytes) -> None:
    """Source text comes out smaller than zstd makes it, random bytes stored, zeros by zstd."""
    assert set(_methods(compress(sample_text, OPTIONS))) == {Method.MODEL}
    assert _methods(compress(RANDOM, OPTIONS)) == [Method.STORED]
    assert _methods(compress(bytes(5000), OPTIONS)) == [Method.GENERAL]


def test_methods_may_change_within_an_archive(archive: bytes, sample_text: bytes) -> None:
    """Each stretch of the input gets the method that is cheapest for it."""
    assert {Method.MODEL, Method.GENERAL, Method.STORED} >= set(_methods(archive)) > {Method.MODEL}
    assert decompress(archive, DECODE) == sample_text[:1100] + RANDOM[:400] + bytes(1500) + sample_text[2000:2300]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    content=st.one_of(st.binary(max_size=600), st.text(max_size=300).map(str.encode)), chunk_size=st.integers(1, 400)
)
@example(content=RANDOM, chunk_size=1)
def test_any_content_comes_back_within_the_bound(content: bytes, chunk_size: int) -> None:
    """The archive takes at most the raw bytes, 24, and 8 a chunk."""
    archive = compress(content, dataclasses.replace(OPTIONS, chunk_size=chunk_size))
    assert len(archive) <= len(content) + 24 + 8 * len(_methods(archive))
    assert decompress(archive, DECODE) == content


@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_lanes_change_nothing(lanes: int, threads: int, sample_text: bytes) -> None:
    """The archive has the same bytes, and gives the same content."""
    content = sample_text[:4000]
    archive = compress(content, dataclasses.replace(OPTIONS, threads=threads, lanes=lanes))
    assert archive == compress(content, OPTIONS)
    assert decompress(archive, DecompressOptions(threads=threads, lanes=lanes)) == content


def test_long_input_is_coded_in_groups(sample_text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups join without loss, and what a group's last chunk would cut is left to the next one."""
    monkeypatch.setattr(llmzip.encoding, "GROUP_SIZE", 2000)
    archive = compress(sample_text[:9000], OPTIONS)
    assert decompress(archive, DECODE) == sample_text[:9000]


def test_progress_tells_bytes_in_and_out(sample_text: bytes) -> None:
    """The numbers rise, and the last call has the totals."""
    calls: list[tuple[int, int]] = []
    target = io.BytesIO()
    compress_stream(io.BytesIO(sample_text[:3000]), target, OPTIONS, lambda *numbers: calls.append(numbers))
    assert calls[-1] == (3000, len(target.getvalue()))
    assert [raw for raw, _ in calls] == sorted(raw for raw, _ in calls)


@pytest.mark.parametrize("damage", ["end cut off", "index damaged", "trailer gone"])
def test_ranges_need_no_index(damage: str, sample_text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records lead to what is wanted, and the reader says so; what lies behind the damage is an error."""
    for name in ("compress_zstd", "compress_general"):
        monkeypatch.setattr(f"llmzip.methods.{name}", lambda raw: raw)
    content = sample_text[:9000]
    archive = compress(content, replace(OPTIONS, chunk_size=100))
    n_trailer = int.from_bytes(archive[-2:], "little") + 2
    damaged = bytearray(archive)
    if damage == "index damaged":
        damaged[-n_trailer + 1] ^= 0x55
    else:
        del damaged[-1 if damage == "end cut off" else -n_trailer :]
    told: list[str] = []
    file = io.BytesIO(bytes(damaged))
    assert b"".join(read_range(file, 4000, 8000, DECODE, told.append)) == content[4000:8000]
    assert [line.partition(", ")[0] for line in told] == ["damaged behind byte 9000 of the content"]
    rest = read_range(file, 8950, 9001, DECODE)
    assert content[8950:].startswith(next(rest))
    with pytest.raises(FormatError):
        list(rest)
    with pytest.raises(FormatError):
        FrameIndex(file)


def test_ranges_are_slices(archive: bytes) -> None:
    """Any range gives what a slice of the content gives, also over chunk ends and beyond the end."""
    content = decompress(archive, DECODE)
    n = len(content)
    for start, stop in [(0, n), (0, 1), (599, 602), (1000, 1900), (n - 1, n + 50), (n, n + 1), (7, 7), (n + 9, n + 12)]:
        pieces = read_range(io.BytesIO(archive), start, stop, DECODE)
        assert b"".join(pieces) == content[start:stop]


def test_concatenated_archives_give_concatenated_content(archive: bytes) -> None:
    """With and without a model, single and not; ranges run over the seam."""
    other = compress(b"def more():\n    return text\n" * 3, dataclasses.replace(OPTIONS, window=32, overlap=8))
    joined = other + archive + compress(b"", OPTIONS) + compress(RANDOM, OPTIONS)
    content = decompress(other, DECODE) + decompress(archive, DECODE) + RANDOM
    assert decompress(joined, DECODE) == content
    assert b"".join(read_range(io.BytesIO(joined), 40, len(content) - 100, DECODE)) == content[40:-100]
    assert FrameIndex(io.BytesIO(joined)).raw_length == len(content)


def test_another_model_is_refused(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that names another artefact: by name a mismatch, else a model that is not there."""
    header = bytearray(archive[:16])
    header[8] ^= 1
    header[15] = crc8(bytes(header[:15]))
    other = bytes(header) + archive[16:]
    with pytest.raises(ModelMismatchError, match="archive needs model"):
        decompress(other, DecompressOptions(model="tiny", threads=1))
    with pytest.raises(ModelNotFoundError):
        decompress(other, DECODE)
    monkeypatch.setenv("LLMZIP_HOME", "nowhere")
    monkeypatch.setattr(store, "BUNDLED", store.data_directory())
    with pytest.raises(ModelNotFoundError):
        decompress(archive, DECODE)


def test_another_canary_is_refused_before_a_byte_is_decoded(archive: bytes) -> None:
    """The message names both."""
    header = bytearray(archive[:16])
    header[13] ^= 0x80
    header[15] = crc8(bytes(header[:15]))
    with pytest.raises(ModelMismatchError, match="canary: expected"):
        decompress(bytes(header) + archive[16:], DECODE)


def test_a_window_beyond_the_model_is_an_error_of_the_format(archive: bytes) -> None:
    """A header with a right checksum asks for more than the 128 positions that the model has: SPEC.md, section 11."""
    header = bytearray(archive[:16])
    header[7] = 0x34
    header[15] = crc8(bytes(header[:15]))
    with pytest.raises(FormatError, match="header: window: expected at most 128 tokens for this model, found 256"):
        decompress(bytes(header) + archive[16:], DECODE)


def test_a_machine_that_computes_otherwise_is_refused(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary of this machine counts, not what it should be."""
    monkeypatch.setattr(Codec, "canary", lambda _: b"\0\0")
    with pytest.raises(ModelMismatchError, match="found 0000"):
        decompress(archive, DECODE)


@pytest.fixture(scope="module")
def small_archive(tiny_home: Path, sample_text: bytes) -> Iterator[bytes]:
    """Some 170 bytes: model chunks with a stored one between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_HOME", str(tiny_home))
        content = sample_text[:60] + RANDOM[:60] + sample_text[1000:1060]
        yield compress(content, dataclasses.replace(OPTIONS, chunk_size=60))


def test_every_truncation_is_an_error(archive: bytes) -> None:
    """An archive cut anywhere raises an error of llmzip, most often that it ends too soon."""
    kinds = set()
    for n in range(len(archive)):
        with pytest.raises(FormatError) as caught:
            decompress(archive[:n], DECODE)
        kinds.add(type(caught.value))
    assert TruncatedError in kinds


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_is_an_error(small_archive: bytes, bit: int) -> None:
    """Never wrong content, a hang, or an exception that is not of llmzip."""
    assert set(_methods(small_archive)) == {Method.MODEL, Method.STORED}
    for position in range(len(small_archive)):
        damaged = bytearray(small_archive)
        damaged[position] ^= 1 << bit
        with pytest.raises(LlmzipError):
            decompress(bytes(damaged), DECODE)


def test_appended_bytes_are_an_error(archive: bytes) -> None:
    """Also a single one, also zeros."""
    for tail in (b"\0", b"\n", b"\x89", bytes(40)):
        with pytest.raises(FormatError):
            decompress(archive + tail, DECODE)


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 100},
        {"window": 256},
        {"overlap": 3},
        {"overlap": 64},
        {"chunk_size": 0},
        {"lanes": 0},
        {"threads": -1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    """By the format, by the model, or in themselves."""
    with pytest.raises(ConfigError):
        compress(b"text", dataclasses.replace(OPTIONS, **changes))


def test_the_archive_finds_its_model_under_any_name(archive: bytes, tiny_model: StoredModel) -> None:
    """A path and an id serve as well as the store."""
    for reference in (str(tiny_model.path), tiny_model.id[:12], "tiny"):
        assert decompress(archive, DecompressOptions(model=reference)) == decompress(archive, DECODE)
