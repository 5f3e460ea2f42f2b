from __future__ import annotations

import gc
import io
import random
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmzip.incremental
from llmzip.archive import compress, decompress
from llmzip.encoding import StreamCompressor
from llmzip.errors import ConfigError, FormatError, ModelNotFoundError, NotAnArchiveError, TruncatedError
from llmzip.incremental import Compressor, Decompressor
from llmzip.options import CompressOptions, DecompressOptions

pytestmark = pytest.mark.usefixtures("tiny_model")

ANY_SPLIT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=300, threads=1)
DECODE = DecompressOptions(threads=1, lanes=3)


@pytest.fixture(scope="module")
def content(sample_text: bytes) -> bytes:
    """Chunks for every method."""
    return sample_text[:900] + random.Random(1).randbytes(400) + bytes(2000) + sample_text[900:1200]


@pytest.fixture(scope="module")
def archive(tiny_home: object, content: bytes) -> bytes:
    """Of the content, in two frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_HOME", str(tiny_home))
        return compress(content, OPTIONS) + compress(content, OPTIONS)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


CUTS = st.lists(st.integers(0, 2**16), max_size=30)


@ANY_SPLIT
@given(cuts=CUTS)
def test_any_split_of_the_content_gives_the_same_archive(cuts: list[int], content: bytes) -> None:
    """Empty pieces, too."""
    compressor = Compressor(OPTIONS)
    pieces = [compressor.compress(piece) for piece in _pieces(content, cuts)]
    assert b"".join([*pieces, compressor.finish()]) == compress(content, OPTIONS)


@ANY_SPLIT
@given(cuts=CUTS)
def test_any_split_of_the_archive_gives_the_same_content(cuts: list[int], archive: bytes, content: bytes) -> None:
    """Byte by byte, or at once."""
    with Decompressor(DECODE) as decompressor:
        pieces = [decompressor.decompress(piece) for piece in _pieces(archive, cuts)]
        assert b"".join([*pieces, decompressor.finish()]) == content * 2


def test_archive_byte_by_byte(archive: bytes, content: bytes) -> None:
    """The finest split."""
    decompressor = Decompressor(DECODE)
    found = b"".join(decompressor.decompress(archive[i : i + 1]) for i in range(len(archive)))
    assert found + decompressor.finish() == content * 2


def test_content_comes_before_the_end_of_the_archive(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """So that a stream without an end can be read."""
    monkeypatch.setattr("llmzip.encoding.GROUP_SIZE", 1000)
    compressor = Compressor(OPTIONS)
    early = compressor.compress(sample_text[:5000])
    assert len(early) > 100
    with Decompressor(DecompressOptions(threads=1, lanes=1)) as decompressor:
        found = decompressor.decompress(early)
        deadline = time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            found += decompressor.decompress(b"")
            time.sleep(0.01)
        assert found
        assert sample_text.startswith(found)


def test_nothing_is_an_archive_of_nothing() -> None:
    """The empty one."""
    assert decompress(Compressor(OPTIONS).finish()) == b""


@pytest.mark.parametrize("waiting", [1, 100])
def test_little_room_on_either_side_suffices(
    waiting: int, archive: bytes, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two sides wait for each other, and never both at once."""
    monkeypatch.setattr(llmzip.incremental, "_MAX_WAITING", waiting)
    decompressor = Decompressor(DECODE)
    assert decompressor.decompress(archive) + decompressor.finish() == content * 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda archive: archive[:-3], TruncatedError),
        (lambda _: b"", TruncatedError),
        (lambda archive: b"x" + archive, NotAnArchiveError),
        (lambda archive: archive[:-20] + bytes([archive[-20] ^ 1]) + archive[-19:], FormatError),
    ],
)
def test_damage_is_told(change: object, error: type[Exception], archive: bytes) -> None:
    """At the latest when the end is asked for; and the thread ends."""
    decompressor = Decompressor(DECODE)
    with pytest.raises(error):
        _all(decompressor, change(archive))  # type: ignore[operator]
    decompressor.close()


def _all(decompressor: Decompressor, archive: bytes) -> bytes:
    return decompressor.decompress(archive) + decompressor.finish()


def test_content_before_damage_is_given(sample_text: bytes) -> None:
    """And then the damage is told; any buffer is taken, and may be used again."""
    archive = compress(sample_text[:700], OPTIONS)
    damaged = bytearray(archive + archive)
    damaged[-20] ^= 1
    found: list[bytes] = []
    with pytest.raises(FormatError):
        _feed(Decompressor(DECODE), damaged, found)
    assert b"".join(found).startswith(sample_text[:700])


def _feed(decompressor: Decompressor, archive: bytearray, found: list[bytes]) -> None:
    for i in range(0, len(archive), 40):
        piece = archive[i : i + 40]
        found.append(decompressor.decompress(piece))
        piece[:] = bytes(len(piece))
    while True:
        found.append(decompressor.decompress(b""))


def test_what_is_finished_takes_no_more(archive: bytes) -> None:
    """Neither data nor another end."""
    decompressor, compressor = Decompressor(DECODE), Compressor(OPTIONS)
    _all(decompressor, archive)
    compressor.finish()
    for call in (decompressor.finish, compressor.finish):
        with pytest.raises(ValueError, match="expected one that is not finished"):
            call()
    for more in (decompressor.decompress, compressor.compress):
        with pytest.raises(ValueError, match="expected one that is not finished"):
            more(b"x")


def test_closing_ends_the_thread(archive: bytes) -> None:
    """In the middle of the archive; also when nobody has the object any more."""
    before = threading.active_count()
    with Decompressor(DECODE) as decompressor:
        decompressor.decompress(archive[:100])
    assert threading.active_count() == before
    forgotten = Decompressor(DECODE)
    forgotten.decompress(archive[:100])
    del forgotten
    gc.collect()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_options_are_checked_at_once() -> None:
    """Not when the first data come."""
    with pytest.raises(ModelNotFoundError):
        Compressor(CompressOptions(model="no such model"))
    with pytest.raises(ConfigError):
        Compressor(CompressOptions(model="tiny", window=1024))


def test_a_compressor_that_lost_content_is_not_finished(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """An error on the way to the archive leaves a hole; no end is written behind it."""
    monkeypatch.setattr("llmzip.encoding.GROUP_SIZE", 1000)

    def _interrupt(_raw: int, _archive: int) -> None:
        raise KeyboardInterrupt

    target = io.BytesIO()
    with StreamCompressor(target, OPTIONS, _interrupt) as compressor:
        with pytest.raises(KeyboardInterrupt):
            compressor.write(sample_text[:3000])
        with pytest.raises(ValueError, match="lost content"):
            compressor.finish()
        with pytest.raises(ValueError, match="lost content"):
            compressor.write(b"more")


def test_a_closed_compressor_takes_nothing() -> None:
    """A block closes it."""
    with Compressor(OPTIONS) as compressor:
        compressor.compress(b"text")
    with pytest.raises(ValueError, match="not finished"):
        compressor.finish()
