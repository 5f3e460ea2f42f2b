from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ChecksumError, FormatError, LlmzipError, NotAnArchiveError, TruncatedError
from llmzip.format import FrameIndex, FrameWriter, Header, Method, read_frames, scan

_MODEL = Header(window=1024, overlap=256, artefact_id=b"\1\2\3\4\5", canary=b"ab")
_EMPTY = bytes.fromhex("894c0d0a 01011100 00000000 000000e9 00 000000")
_HELLO = bytes.fromhex("894c0d0a 01011100 00000000 000000e9 18 20303a 68656c6c6f0a")
_TWO = bytes.fromhex(
    "894c0d0a 01001100 00000000 00000081 1820303a68656c6c6f0a 18a86138776f726c640a 03 4a1e67f2fe1d 0700"
)


def _archive(chunks: list[bytes], header: Header = _MODEL) -> bytes:
    """Write the chunks as stored ones."""
    file = io.BytesIO()
    writer = FrameWriter(file, header)
    for raw in chunks:
        writer.write_chunk(Method.STORED, raw, raw)
    writer.finish()
    assert writer.n_written == len(file.getvalue())
    return file.getvalue()


def _content(blob: bytes) -> bytes:
    """Read an archive of stored chunks with all checks."""
    content = bytearray()
    for frame in read_frames(io.BytesIO(blob)):
        for place, payload in frame.chunks():
            assert place.raw_offset == len(content)
            place.record.verify(payload, payload, place.offset)
            frame.update_digest(payload)
            content += payload
        frame.check_digest()
    return bytes(content)


_SHORT_CHUNKS = [b"%d\n" % i for i in range(300)]
_SAMPLES = {
    "empty": _EMPTY,
    "single": _HELLO,
    "two": _TWO,
    "many": _archive(_SHORT_CHUNKS),
    "64": _archive(_SHORT_CHUNKS[:64]),
    "65": _archive(_SHORT_CHUNKS[:65]),
}


@pytest.mark.parametrize(
    ("chunks", "blob"), [([], _EMPTY), ([b"hello\n"], _HELLO), ([b"hello\n", b"world\n"], _TWO)], ids=len
)
def test_examples_of_the_specification(chunks: list[bytes], blob: bytes) -> None:
    """The archives of SPEC.md, section 12, are written and read as printed."""
    assert _archive(chunks, Header()) == blob
    assert _content(blob) == b"".join(chunks)


def test_a_single_chunk_without_the_model_names_no_model() -> None:
    """Where the model coded nothing, nobody needs it to decode."""
    assert _archive([b"hello\n"], _MODEL) == _HELLO
    frame = next(read_frames(io.BytesIO(_archive([b"hello\n", b"world\n"], _MODEL))))
    assert frame.header == _MODEL


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=200))
def test_any_chunks_come_back(chunks: list[bytes]) -> None:
    """Reading undoes writing, by frames and by index."""
    blob = _archive(chunks)
    content = b"".join(chunks)
    assert _content(blob) == content
    index = FrameIndex(io.BytesIO(blob))
    assert index.raw_length == len(content)
    assert b"".join(payload for _, _, payload in index.chunks(0, len(content))) == content


@given(
    st.sampled_from(list(_SAMPLES.values())),
    st.sampled_from(list(_SAMPLES.values())),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_any_range_of_concatenated_archives_is_found(first: bytes, second: bytes, start: int, stop: int) -> None:
    """Concatenated archives hold concatenated content, and the index leads to each byte of it."""
    content = _content(first) + _content(second)
    assert _content(first + second) == content
    found = bytearray()
    for _, place, payload in FrameIndex(io.BytesIO(first + second)).chunks(start, stop):
        found += payload[max(start - place.raw_offset, 0) : max(stop - place.raw_offset, 0)]
    assert bytes(found) == content[start:stop]


def test_a_range_reads_no_more_than_the_chunks_around_it() -> None:
    """The index at the end spares a reader the chunks before, but for 63."""
    blob = _SAMPLES["many"]
    file = _Counting(blob)
    assert [payload for _, _, payload in FrameIndex(file).chunks(1000, 1001)] == [b"277\n"]
    assert file.n_read < len(blob) // 2


class _Counting(io.BytesIO):
    """Counts the bytes that are read."""

    n_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.n_read += len(data)
        return data


@given(
    st.lists(
        st.tuples(st.sampled_from(Method), st.integers(1, 70_000), st.floats(0, 2)), min_size=1, max_size=6
    ).filter(lambda chunks: sum(raw for _, raw, _ in chunks) < 200_000)
)
def test_the_size_is_bounded(chunks: list[tuple[Method, int, float]]) -> None:
    """No archive exceeds its raw size, 24 bytes, and 8 bytes a chunk, whatever the payloads; one chunk costs 24."""
    file = io.BytesIO()
    writer = FrameWriter(file, _MODEL)
    for method, raw_length, ratio in chunks:
        writer.write_chunk(method, bytes(raw_length), bytes(max(raw_length // 1024, int(raw_length * ratio))))
    writer.finish()
    size = len(file.getvalue())
    assert size <= writer.n_raw + 24 + 8 * len(chunks)
    frame = next(read_frames(io.BytesIO(file.getvalue())))
    places = list(frame.places())
    if len(chunks) == 1 and chunks[0][1] <= 65_536:
        assert size <= places[0].record.payload_length + 24


def test_many_chunks_keep_to_the_bound() -> None:
    """The index, too, is within 8 bytes a chunk."""
    chunks = [b"x"] * 5000
    assert len(_archive(chunks)) <= 24 + 9 * len(chunks)


@pytest.mark.parametrize("name", _SAMPLES)
def test_every_truncation_is_told(name: str) -> None:
    """An archive cut anywhere is truncated, to a reader and to a scan."""
    blob = _SAMPLES[name]
    for length in range(len(blob)):
        with pytest.raises(TruncatedError) as caught:
            _content(blob[:length])
        assert caught.value.offset is not None
        assert caught.value.offset <= length
        with pytest.raises(TruncatedError):
            list(scan(io.BytesIO(blob[:length])))


@pytest.mark.parametrize("read", [_content, lambda blob: list(scan(io.BytesIO(blob)))], ids=["read", "scan"])
@given(
    name=st.sampled_from(sorted(_SAMPLES)), edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)
)
def test_damage_is_refused_or_harmless(
    read: Callable[[bytes], object], name: str, edits: list[tuple[int, int]]
) -> None:
    """Changed bytes give one of our errors or the same content, never another exception or other content."""
    blob = bytearray(_SAMPLES[name])
    for at, value in edits:
        blob[at % len(blob)] = value
    try:
        found = read(bytes(blob))
    except LlmzipError:
        return
    if read is _content:
        assert found == _content(_SAMPLES[name])


@given(st.binary(max_size=60))
def test_crafted_bytes_behind_a_header_give_our_errors(tail: bytes) -> None:
    """Whatever follows a valid header is decoded or refused with an error of ours."""
    for header in (Header(single=True), Header(), Header(sections=True), _MODEL):
        blob = header.pack() + tail
        for read in (_content, lambda data: FrameIndex(io.BytesIO(data))):
            try:
                read(blob)
            except LlmzipError:
                continue


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        pytest.param(b"\x89L\r", TruncatedError, id="begun-magic"),
        pytest.param(_HELLO[:15], TruncatedError, id="begun-header"),
        pytest.param(b"\0", FormatError, id="zero"),
        pytest.param(b"PK\x03\x04" * 8, FormatError, id="another-format"),
    ],
)
def test_bytes_behind_the_last_frame_are_refused(tail: bytes, kind: type[FormatError]) -> None:
    """What follows a frame is a frame, the beginning of one, or trailing bytes."""
    with pytest.raises(kind) as caught:
        _content(_HELLO + tail)
    assert type(caught.value) is kind
    assert caught.value.offset == len(_HELLO)


def test_foreign_bytes_are_not_an_archive() -> None:
    """A file that does not begin with the magic is refused as such."""
    with pytest.raises(NotAnArchiveError):
        _content(b"just text")


def test_a_wrong_content_digest_is_told() -> None:
    """Chunks whose own checks hold, but which are not those of the digest, are refused."""
    digest = hashlib.sha256(b"hello\nworld\n").digest()[:6]
    blob = _TWO.replace(digest, bytes(6))
    with pytest.raises(ChecksumError) as caught:
        _content(blob)
    assert (caught.value.need, caught.value.have) == (bytes(6), digest)
    assert caught.value.offset == len(_TWO) - 8


def test_an_empty_chunk_is_the_callers_mistake() -> None:
    """Only an archive without chunks is empty."""
    with pytest.raises(ValueError, match="at least 1"):
        FrameWriter(io.BytesIO(), _MODEL).write_chunk(Method.STORED, b"", b"")


def test_a_scan_adds_up_the_methods() -> None:
    """A summary tells chunks, raw bytes and payload bytes by method."""
    file = io.BytesIO()
    writer = FrameWriter(file, _MODEL)
    writer.write_chunk(Method.MODEL, bytes(1000), bytes(10))
    writer.write_chunk(Method.GENERAL, bytes(2000), bytes(20))
    writer.write_chunk(Method.MODEL, bytes(3000), bytes(30))
    writer.finish()
    (summary,) = scan(io.BytesIO(file.getvalue()))
    assert summary.size == len(file.getvalue())
    assert summary.raw_length == 6000
    assert {
        method: (total.n_chunks, total.raw_length, total.payload_length) for method, total in summary.methods.items()
    } == {Method.MODEL: (2, 4000, 40), Method.GENERAL: (1, 2000, 20)}
