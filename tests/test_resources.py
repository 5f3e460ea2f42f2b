from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import llmzip
import llmzip.lanes
from llmzip import loading
from llmzip.archive import compress, decompress, decompress_stream, verify_stream
from llmzip.codec import Codec
from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.conditioner_set import ConditionerSet, Text
from llmzip.conditioning.conditioning import Conditioning, Policy
from llmzip.decoding import read_range
from llmzip.errors import ConfigError, LimitError
from llmzip.format import FrameWriter, Header, Method, read_frames
from llmzip.general import compress_general
from llmzip.lanes import LaneDecoder
from llmzip.loading import load_codec
from llmzip.options import CodingOptions, CompressOptions, DecompressOptions
from llmzip.resources import COMPRESSORS, ENCODING_THREAD, PROGRAM, Share, largest_held, share_out
from llmzip.salvage import salvage_stream

pytestmark = pytest.mark.usefixtures("tiny_model")

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=600, threads=2, workers=0)
LARGE = 1 << 40


def _share(options: CodingOptions, *, encode: bool = False, large: bool = False) -> Share:
    return share_out(load_codec(OPTIONS), options, encode=encode, large=large)


def test_threads_and_lanes_are_shared_among_workers() -> None:
    """Each has its part, and at least one."""
    options = CodingOptions(threads=6, lanes=64)
    assert _share(replace(options, workers=0)) == Share(0, 6, 64)
    assert _share(replace(options, workers=3)) == Share(3, 2, 21)
    assert _share(replace(options, workers=9)) == Share(9, 1, 7)
    assert _share(replace(options, workers=100)) == Share(100, 1, 1)


def test_workers_are_for_much_content_and_several_threads() -> None:
    """Unless a number is given."""
    assert _share(CodingOptions(threads=4), large=False).n_workers == 0
    assert _share(CodingOptions(threads=4), large=True).n_workers == 4
    assert _share(CodingOptions(threads=1), large=True).n_workers == 0
    assert _share(CodingOptions(threads=4, workers=0), large=True).n_workers == 0


@pytest.mark.parametrize("encode", [False, True])
def test_less_memory_means_fewer_workers_then_lanes_then_none(encode: bool) -> None:
    """All is used that fits; where nothing does, the error says what would."""
    options = CodingOptions(threads=4, lanes=64, workers=4)
    assert _share(replace(options, memory=LARGE), encode=encode) == _share(options, encode=encode)
    least = PROGRAM + int(9 / 4 * load_codec(OPTIONS).artefact.n_bytes)
    memories = range(4 << 30, least + (180 << 20), -(20 << 20))
    counts = [_share(replace(options, memory=memory), encode=encode).n_workers for memory in memories]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (4, 0)
    with pytest.raises(ConfigError, match=f"found {least / 2**20:.1f}") as caught:
        _share(replace(options, memory=least), encode=encode)
    needed = int(re.findall(r"at least (\d+) MiB", str(caught.value))[0]) << 20
    assert _share(replace(options, memory=needed), encode=encode).n_workers == 0
    with pytest.raises(ConfigError):
        _share(replace(options, memory=needed - (2 << 20)), encode=encode)


def test_a_thread_that_compares_choices_has_its_lane_too() -> None:
    """Beside those that encode; workers compare on the threads that they have, and decoders compare nothing."""
    plain = load_codec(OPTIONS)
    chooser = Chooser(np.zeros((257, 1), np.float32), np.zeros((257, 0), np.float32))
    conditioning = Conditioning(ConditionerSet((Text(np.array([5], np.int32)),)), chooser=chooser)
    sampling = plain.with_conditioning(conditioning)
    trying_all = plain.with_conditioning(replace(conditioning, policy=Policy.BEST))
    thread = plain.transformer.new_cache(1, 64).n_bytes + ENCODING_THREAD
    process = PROGRAM + COMPRESSORS + int(9 / 4 * plain.artefact.n_bytes)
    options = CodingOptions(threads=4, workers=0, memory=process + 4 * thread)
    for codec, n_threads in ((plain, 4), (sampling, 3), (trying_all, 4)):
        assert share_out(codec, options, encode=True, large=False).n_threads == n_threads
    with pytest.raises(ConfigError, match=f"at least {-(-(process + 2 * thread) // 2**20)} MiB"):
        share_out(sampling, replace(options, memory=process + thread), encode=True, large=False)
    shared = replace(options, workers=2, memory=3 * process)
    for encode, given in ((True, shared), (False, options)):
        assert share_out(sampling, given, encode=encode, large=True) == share_out(
            plain, given, encode=encode, large=True
        )


def test_lanes_fit_into_the_memory(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """Decoding has fewer of them, and the same result."""
    seen: list[int] = []

    class Watched(LaneDecoder):
        def __init__(self, codec: Codec, n_lanes: int, n_threads: int) -> None:
            seen.append(n_lanes)
            super().__init__(codec, n_lanes, n_threads)

    monkeypatch.setattr(llmzip.lanes, "LaneDecoder", Watched)
    monkeypatch.setattr("llmzip.resources.PROGRAM", 0)
    archive = compress(sample_text[:3000], OPTIONS)
    codec = load_codec(OPTIONS)
    lane = codec.transformer.new_cache(1, 64).n_bytes
    monkeypatch.setattr("llmzip.resources._CHUNK_SHARE", 1 << 40)
    monkeypatch.setattr("llmzip.loading.check_place", lambda *_: None)
    monkeypatch.setattr("llmzip.decoding.check_place", lambda *_: None)
    monkeypatch.setattr("llmzip.archive.check_place", lambda *_: None)
    memory = int(9 / 4 * codec.artefact.n_bytes) + 5 * lane + lane // 2
    assert decompress(archive, DecompressOptions(threads=1, memory=memory)) == sample_text[:3000]
    assert seen == [5]


def test_chunks_must_fit_into_the_memory() -> None:
    """A bomb is refused before its memory is taken, wherever it stands."""
    raw = bytes(1 << 20)
    file = io.BytesIO()
    writer = FrameWriter(file, Header())
    writer.write_chunk(Method.STORED, b"first", b"first")
    writer.write_chunk(Method.GENERAL, raw, compress_general(raw))
    writer.finish()
    archive, content = file.getvalue(), b"first" + raw
    # Beside a model there is less: none may be loaded at first.
    loading._load_codec.cache_clear()
    for least, with_model in (((56 << 20) + 4 * len(raw), False), (32 * len(raw), True)):
        enough, less = DecompressOptions(memory=least), DecompressOptions(memory=least - 4)
        if with_model:
            load_codec(OPTIONS)
        assert decompress(archive, enough) == content
        assert b"".join(read_range(io.BytesIO(archive), 0, 1 << 30, enough)) == content
        assert salvage_stream(io.BytesIO(archive), io.BytesIO(), enough) == []
        for way in (
            lambda less=less: decompress(archive, less),
            lambda less=less: list(read_range(io.BytesIO(archive), 0, 1 << 30, less)),
            lambda less=less: salvage_stream(io.BytesIO(archive), io.BytesIO(), less),
            lambda less=less: list(verify_stream(io.BytesIO(archive), less)),
        ):
            with pytest.raises(LimitError, match="chunk length under --memory") as caught:
                way()
            assert (caught.value.need, caught.value.have) == (len(raw) - 1, len(raw))


def test_payloads_of_chunks_that_are_refused_are_not_read() -> None:
    """Their memory is not taken, their time neither."""
    archive = compress(b"first") + compress(random.Random(0).randbytes(3 << 20))

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size < 1 << 16
            return super().read(size)

    with pytest.raises(LimitError, match="under --memory"):
        decompress_stream(Watched(archive), io.BytesIO(), DecompressOptions(memory=60 << 20))
    with pytest.raises(LimitError, match="under --max-size"):
        decompress_stream(Watched(archive), io.BytesIO(), DecompressOptions(max_size=100))


def test_models_that_cannot_fit_are_not_read(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """The size of their files says so."""
    archive = compress(sample_text[:600], OPTIONS)
    loading._load_codec.cache_clear()
    monkeypatch.setattr(loading, "_load_codec", None)
    with pytest.raises(ConfigError, match=r"memory: expected at least 177 MiB for this model, found 170\.0"):
        compress(b"text", replace(OPTIONS, memory=170 << 20))
    with pytest.raises(ConfigError, match="memory: expected at least 177 MiB"):
        loading.codec_of(next(read_frames(io.BytesIO(archive))).header, DecompressOptions(memory=170 << 20))


def test_little_memory_holds_few_chunks() -> None:
    """Without a limit, as many as the caller says."""
    assert largest_held(CodingOptions(), 1000) == 1000
    assert largest_held(CodingOptions(memory=3200), 1000) == 100
    assert largest_held(CodingOptions(memory=320_000), 1000) == 1000


def test_content_above_the_size_allowed_is_refused(sample_text: bytes, tmp_path: Path) -> None:
    """Whole archives, in one frame or several, and what is saved of them."""
    content = sample_text[:3000]
    archive = compress(content[:1000], OPTIONS) + compress(content[1000:], OPTIONS)
    exact, less = DecompressOptions(max_size=3000), DecompressOptions(max_size=2999)
    assert decompress(archive, exact) == content
    assert list(verify_stream(io.BytesIO(archive), exact)) == []
    assert salvage_stream(io.BytesIO(archive), io.BytesIO(), exact) == []
    with pytest.raises(LimitError, match="at most 2999"):
        decompress(archive, less)
    assert b"".join(read_range(io.BytesIO(archive), 1, 1 << 20, less)) == content[1:]
    with pytest.raises(LimitError, match="at most 2999"):
        list(read_range(io.BytesIO(archive), 0, 1 << 20, less))
    with pytest.raises(LimitError, match="at most 2999"):
        list(verify_stream(io.BytesIO(archive), less))
    with pytest.raises(LimitError, match="at most 2999"):
        salvage_stream(io.BytesIO(archive), io.BytesIO(), less)
    path = tmp_path / "a.llmz"
    path.write_bytes(archive)
    with llmzip.open(path, options=exact) as file:
        assert file.read() == content
    with pytest.raises(LimitError, match="at most 2999"):
        llmzip.open(path, options=less)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"workers": -1}, {"workers": 257}, {"max_size": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    """When they are made."""
    with pytest.raises(ConfigError, match=r"expected at (least|most)"):
        DecompressOptions(**wrong)  # type: ignore[arg-type]
