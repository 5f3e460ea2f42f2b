from __future__ import annotations

import io
from dataclasses import replace

import pytest

import llmzip.lanes
from llmzip.archive import compress, decompress, verify_stream
from llmzip.codec import Codec
from llmzip.decoding import read_range
from llmzip.errors import ConfigError, LimitError
from llmzip.format import FrameWriter, Header, Method
from llmzip.general import compress_general
from llmzip.lanes import LaneDecoder
from llmzip.loading import load_codec
from llmzip.options import CodingOptions, CompressOptions, DecompressOptions
from llmzip.resources import PROGRAM, Share, check_chunk, largest_held, share_out
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
    with pytest.raises(ConfigError, match=f"found {least / 2**20:.1f}"):
        _share(replace(options, memory=least), encode=encode)


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
    memory = int(9 / 4 * codec.artefact.n_bytes) + 5 * lane + lane // 2
    monkeypatch.setattr("llmzip.resources.BARE_PROGRAM", 0)
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
    least = (56 << 20) + 3 * len(raw)
    assert decompress(file.getvalue(), DecompressOptions(memory=least)) == b"first" + raw
    with pytest.raises(LimitError, match="memory allowed") as caught:
        decompress(file.getvalue(), DecompressOptions(memory=least - 3))
    assert (caught.value.need, caught.value.have) == (len(raw) - 1, len(raw))


def test_little_memory_holds_few_chunks() -> None:
    """Without a limit, as many as the caller says."""
    assert largest_held(CodingOptions(), 1000) == 1000
    assert largest_held(CodingOptions(memory=800), 1000) == 100
    assert largest_held(CodingOptions(memory=80_000), 1000) == 1000
    check_chunk(LARGE, CodingOptions(), 0)


def test_content_above_the_size_allowed_is_refused(sample_text: bytes) -> None:
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


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"workers": -1}, {"max_size": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    """When they are made."""
    with pytest.raises(ConfigError, match="expected at least"):
        DecompressOptions(**wrong)  # type: ignore[arg-type]
