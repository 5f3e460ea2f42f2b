from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.codec import Codec
from llmzip.errors import ConfigError, FormatError
from llmzip.exact.backend import Sizes
from llmzip.lanes import LaneDecoder
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing

WINDOWINGS = [Windowing(32, 0), Windowing(32, 8), Windowing(64, 48), Windowing(128, 32)]


def _encode(codec: Codec, chunks: list[bytes], n_threads: int = 1) -> list[bytes]:
    with ThreadPoolExecutor(n_threads) as pool:
        return list(codec.encode(codec.tokenise(chunks), pool.map))


def _decode(codec: Codec, payloads: list[bytes], lengths: list[int], lanes: int = 4, threads: int = 1) -> list[bytes]:
    decoder = LaneDecoder(codec, lanes, threads)
    try:
        futures = [decoder.submit(*chunk) for chunk in zip(payloads, lengths, strict=True)]
        return [future.result(timeout=60) for future in futures]
    finally:
        decoder.close()


@pytest.fixture(scope="module")
def chunks(sample_text: bytes) -> list[bytes]:
    """Chunks of many lengths, some not text."""
    cuts = [0, 1, 3, 40, 41, 300, 900, 1000, 2400, 2404]
    return [sample_text[a:b] for a, b in itertools.pairwise(cuts)] + [bytes(range(256)), b"\xff", "naïve ☃".encode()]


@pytest.fixture(scope="module")
def codec(tiny_artefact: Artefact) -> Codec:
    """Windows of 64 tokens with 16 of overlap: several to a chunk."""
    return Codec(tiny_artefact, Windowing(64, 16))


@given(st.integers(0, 500), st.integers(1, 64), st.data())
def test_windows_cover_each_token_once(n_tokens: int, window: int, data: st.DataObject) -> None:
    """In order, none longer than the window, each but the first with the whole overlap before what it codes."""
    overlap = data.draw(st.integers(0, window - 1))
    windows = list(Windowing(window, overlap).cover(n_tokens))
    assert [i for w in windows for i in range(w.coded, w.stop)] == list(range(n_tokens))
    for i, w in enumerate(windows):
        assert w.stop > w.coded
        assert w.stop - w.start <= window
        assert w.coded - w.start == (overlap if i else 0)
    for w in windows[:-1]:
        assert w.stop - w.start == window


@pytest.mark.parametrize("windowing", WINDOWINGS, ids=lambda w: f"W{w.window}-O{w.overlap}")
def test_chunks_come_back(windowing: Windowing, tiny_artefact: Artefact, chunks: list[bytes]) -> None:
    """With windows smaller and greater than a chunk, with and without overlap."""
    codec = Codec(tiny_artefact, windowing)
    payloads = _encode(codec, chunks)
    assert _decode(codec, payloads, [len(chunk) for chunk in chunks]) == chunks


def test_threads_do_not_change_a_payload(codec: Codec, chunks: list[bytes]) -> None:
    """One thread or three, and each chunk alone, give the same bytes."""
    payloads = _encode(codec, chunks)
    assert _encode(codec, chunks, n_threads=3) == payloads
    assert [_encode(codec, [chunk])[0] for chunk in chunks] == payloads


@pytest.mark.parametrize("lanes", [1, 7, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_lanes_and_threads_do_not_change_the_content(
    lanes: int, threads: int, codec: Codec, chunks: list[bytes]
) -> None:
    """Lanes fewer and more than chunks; a lane takes the next chunk when one ends."""
    payloads = _encode(codec, chunks)
    assert _decode(codec, payloads, [len(chunk) for chunk in chunks], lanes, threads) == chunks


def test_windows_are_part_of_the_coding(tiny_artefact: Artefact, sample_text: bytes) -> None:
    """What the model has seen changes the payload, so that the tests above compare something."""
    payloads = {_encode(Codec(tiny_artefact, windowing), [sample_text[:900]])[0] for windowing in WINDOWINGS}
    assert len(payloads) == len(WINDOWINGS)


def test_reference_backend_makes_the_same_payload(
    tiny_artefact: Artefact, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one backend writes, the other reads."""
    chunk = sample_text[:250]
    payload = _encode(Codec(tiny_artefact, Windowing(32, 8)), [chunk])[0]
    monkeypatch.setenv("LLMZIP_BACKEND", "reference")
    codec = Codec(tiny_artefact, Windowing(32, 8))
    assert codec.backend.name == "reference"
    assert _encode(codec, [chunk])[0] == payload
    assert _decode(codec, [payload], [len(chunk)]) == [chunk]


def test_canary_depends_on_the_model_alone(tiny_artefact: Artefact) -> None:
    """Two bytes, whatever the windows."""
    canaries = {Codec(tiny_artefact, windowing).canary() for windowing in WINDOWINGS}
    assert len(canaries) == 1
    assert len(canaries.pop()) == 2


def test_nothing_keeps_a_codec_that_nobody_uses(tiny_artefact: Artefact) -> None:
    """Headers can ask for many windows; what was made for one of them goes when it is no longer needed."""
    codec = Codec(tiny_artefact, Windowing(32, 8))
    codec.canary()
    known = weakref.ref(codec)
    del codec
    gc.collect()
    assert known() is None


def test_damaged_payloads_end(codec: Codec, sample_text: bytes) -> None:
    """Flipped, cut, emptied or random: bytes of the promised length, or an error of the format, never more."""
    chunk, rng = sample_text[:200], random.Random(4)
    payload = _encode(codec, [chunk])[0]
    damaged = [payload[:n] for n in range(0, len(payload), 4)] + [payload + b"\xff\xff\xff\xff", rng.randbytes(64)]
    for _ in range(30):
        flipped = bytearray(payload)
        flipped[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    decoder = LaneDecoder(codec, 8, 1)
    for future in [decoder.submit(data, len(chunk)) for data in damaged]:
        error = future.exception(timeout=60)
        assert isinstance(error, FormatError) if error else len(future.result()) == len(chunk)
    decoder.close()


def test_a_damaged_payload_leaves_other_lanes_alone(codec: Codec, chunks: list[bytes]) -> None:
    """Chunks beside it come out right."""
    payloads, lengths = _encode(codec, chunks), [len(chunk) for chunk in chunks]
    decoder = LaneDecoder(codec, 3, 1)
    bad, odd = decoder.submit(b"\xff" * 40, 500), decoder.submit(b"abc", 5)
    good = [decoder.submit(*chunk) for chunk in zip(payloads, lengths, strict=True)]
    assert isinstance(bad.exception(timeout=60), FormatError)
    assert isinstance(odd.exception(timeout=60), FormatError)
    assert [future.result(timeout=60) for future in good] == chunks
    decoder.close()


def test_a_token_beyond_the_raw_length_is_refused(codec: Codec) -> None:
    """A token that goes beyond the raw length is an error."""
    payload = _encode(codec, [b"return text" * 30])[0]
    decoder = LaneDecoder(codec, 1, 1)
    assert isinstance(decoder.submit(payload, 1).exception(timeout=60), FormatError)
    decoder.close()


def test_closing_ends_the_threads(codec: Codec) -> None:
    """Also with work left to do."""
    before = threading.active_count()
    decoder = LaneDecoder(codec, 2, 2)
    for _ in range(4):
        decoder.submit(bytes(4000), 100_000)
    assert threading.active_count() == before + 2
    decoder.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("windowing", [Windowing(32, 32), Windowing(32, -1), Windowing(16, 40)])
def test_an_overlap_beyond_the_window_is_refused(windowing: Windowing, tiny_artefact: Artefact) -> None:
    """A window must code at least one token."""
    with pytest.raises(ConfigError, match="overlap below"):
        Codec(tiny_artefact, windowing)


def test_blocks_do_not_change_a_payload(tiny_artefact: Artefact, sample_text: bytes) -> None:
    """How many windows, rows of them and logits are made together is free."""
    codec = Codec(tiny_artefact, Windowing(128, 32))
    chunks = [sample_text[:1500], sample_text[1500:1600], sample_text[1600:3000]]
    payloads = _encode(codec, chunks)
    for sizes in [(1, 512, 1), (7, 4096, 2), (200, 1 << 20, 3), (1000, 1 << 24, 5), (10000, 1 << 24, 100)]:
        other = Codec(tiny_artefact, Windowing(128, 32))
        other.sizes = Sizes(*sizes)
        assert _encode(other, chunks, n_threads=2) == payloads


def test_tokens_give_the_bytes(codec: Codec, chunks: list[bytes]) -> None:
    """Tokens of a chunk stand for its bytes."""
    tokens: list[NDArray[np.int32]] = codec.tokenise(chunks)
    assert [codec.artefact.vocabulary.decode(ids) for ids in tokens] == chunks
