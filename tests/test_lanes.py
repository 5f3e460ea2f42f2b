from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmzip.codec import Codec
from llmzip.entropy import TokenEncoder
from llmzip.errors import FormatError
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.exact.transformer import Segment
from llmzip.lanes import LaneDecoder, Lanes
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import build_artefact
from llmzip.windows import Windowing

# 300 tokens are 17 buckets of 18, the last of which is not full, and an 18th that nobody may use.
VOCAB_SIZE = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "width": 24,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_width": 6,
    "ff_width": 37,
    "max_positions": 64,
    "bos_id": 0,
    "rotary_width": 6,
    "mlp": "plain",
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    # In windows of 16 tokens the first layer loses keys to its budget and both to the cutoff.
    "selective": {"activation": "relu2", "selection": Selection(2000, (7, 0)), "ngrams": Ngrams(2, 64)},
}
WINDOWINGS = [Windowing(16, 0), Windowing(16, 4), Windowing(32, 24), Windowing(64, 16)]
MakeCodec = Callable[[str, Windowing], Codec]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory, train_tokenizer: Callable[[int], str]) -> dict[str, Artefact]:
    """Random models that share a tokenizer."""
    tokenizer_json = train_tokenizer(VOCAB_SIZE)
    return {kind: _artefact(kind, tokenizer_json, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def _artefact(kind: str, tokenizer_json: str, folder: Path) -> Artefact:
    spec = ModelSpec(**(SIZES | KINDS[kind] | {"family": kind}))
    rng = np.random.default_rng(7)
    names = ["embed", *(f"ngram{n + 2}" for n in range(spec.ngrams.tables if spec.ngrams else 0))]
    names += [f"layers.{i}.{part}" for i in range(spec.n_layers) for part in ("q", "k", "v", "o", "up", "down")]
    tensors = {}
    for name in names:
        shape = tensor_shape(spec, f"{name}.weight")
        tensors[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32) * np.float32(1.5 / math.sqrt(shape[1]))
    norms = ["final_norm", *(f"layers.{i}.{norm}_norm" for i in range(spec.n_layers) for norm in ("attention", "mlp"))]
    tensors |= {f"{norm}.weight": np.ones(spec.width, np.float32) for norm in norms}
    build_artefact(FloatModel(spec, tensors, tokenizer_json, "none", "made here"), folder)
    return load_artefact(folder)


@pytest.fixture
def make_codec(artefacts: dict[str, Artefact]) -> MakeCodec:
    """A codec of its own for each test, which may be damaged."""
    return lambda kind, windowing: Codec(artefacts[kind], windowing)


@pytest.fixture(scope="module")
def chunks(sample_text: bytes) -> list[bytes]:
    """Chunks of very different lengths, so that lanes end at different times."""
    cuts = [0, 1, 150, 155, 300, 420, 450, 452, 700, 720]
    return [sample_text[a:b] for a, b in itertools.pairwise(cuts)]


def _encode(codec: Codec, chunks: Sequence[bytes]) -> list[bytes]:
    with ThreadPoolExecutor(1) as pool:
        return list(codec.encode(codec.tokenise(chunks), pool.map))


def _decode(lanes: Lanes, n_lanes: int, jobs: Sequence[tuple[bytes, int]]) -> list[bytes | FormatError]:
    """What comes of each payload and raw length; the last lane that is free takes the next one."""
    results: dict[int, bytes | FormatError] = {}
    free, active, next_job = list(range(n_lanes)), {}, 0
    while len(results) < len(jobs):
        while free and next_job < len(jobs):
            lanes.begin(free[-1], *jobs[next_job])
            active[free.pop()] = next_job
            next_job += 1
        indices = np.array(list(active), dtype=np.int32)
        lanes.step(indices)
        for lane in lanes.finished(indices).tolist():
            results[active.pop(lane)] = _end(lanes, lane)
            free.append(lane)
    return [results[i] for i in range(len(jobs))]


def _end(lanes: Lanes, lane: int) -> bytes | FormatError:
    try:
        return lanes.end(lane)
    except FormatError as error:
        return error


def _jobs(codec: Codec, chunks: Sequence[bytes]) -> list[tuple[bytes, int]]:
    return [(payload, len(chunk)) for payload, chunk in zip(_encode(codec, chunks), chunks, strict=True)]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("windowing", WINDOWINGS, ids=lambda w: f"W{w.window}-O{w.overlap}")
@pytest.mark.parametrize("n_lanes", [1, 3, 9])
def test_lanes_give_back_what_was_encoded(
    n_lanes: int, windowing: Windowing, kind: str, make_codec: MakeCodec, chunks: list[bytes]
) -> None:
    """Windows with and without overlap; a lane that ends takes another chunk while its neighbours go on."""
    codec = make_codec(kind, windowing)
    assert _decode(Lanes(codec, n_lanes), n_lanes, _jobs(codec, chunks)) == chunks


def test_selection_and_windows_show_in_a_payload(make_codec: MakeCodec, chunks: list[bytes]) -> None:
    """The comparisons above are of different predictions."""
    payloads = {_encode(make_codec(kind, windowing), [chunks[1]])[0] for kind in KINDS for windowing in WINDOWINGS}
    assert len(payloads) == len(KINDS) * len(WINDOWINGS)
    spec = make_codec("selective", WINDOWINGS[0]).artefact.spec
    assert math.isqrt(spec.vocab_size) ** 2 != spec.vocab_size


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("room", [1, 3, 64])
def test_room_for_tokens_grows(
    room: int, kind: str, make_codec: MakeCodec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several times, beside lanes that do not need it, without a change of what is there."""
    monkeypatch.setattr("llmzip.lanes.ROOM", room)
    codec = make_codec(kind, Windowing(16, 4))
    assert max(map(len, codec.tokenise(chunks))) > 2 * room
    lanes = Lanes(codec, 3)
    jobs = _jobs(codec, chunks)
    assert _decode(lanes, 3, jobs) == chunks
    assert _decode(lanes, 3, jobs[::-1]) == chunks[::-1]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("output_elements", [1, 1 << 20])
def test_an_error_ends_its_lane_alone(
    output_elements: int, kind: str, make_codec: MakeCodec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the lanes' logits are made together or in parts; the lane is as good as new afterwards."""
    codec = make_codec(kind, Windowing(16, 4))
    monkeypatch.setattr(codec, "sizes", codec.sizes._replace(outputs=output_elements))
    good = _jobs(codec, chunks)
    bad = [(b"\xff" * 40, 500), (good[1][0], 2), (b"\xff" * 4000, 9), (good[3][0][:-8], len(chunks[3]))]
    jobs = [job for pair in zip(bad + bad, good[:8], strict=True) for job in pair]
    lanes = Lanes(codec, 8)
    results = _decode(lanes, 8, jobs)
    assert results[1::2] == chunks[:8]
    for i, (_, length) in enumerate(bad):
        found = results[2 * i]
        assert isinstance(found, FormatError) or len(found) == length
    assert any(isinstance(result, FormatError) for result in results)
    assert _decode(lanes, 8, good) == chunks


def test_a_payload_that_is_none_is_refused_before_its_lane_is_used(make_codec: MakeCodec, chunks: list[bytes]) -> None:
    """The lane then takes another chunk."""
    codec = make_codec("plain", Windowing(16, 4))
    lanes = Lanes(codec, 1)
    with pytest.raises(FormatError, match="multiple of 4 bytes, found 3"):
        lanes.begin(0, b"abc", 5)
    assert _decode(lanes, 1, _jobs(codec, chunks[:2])) == chunks[:2]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("token", [0, VOCAB_SIZE, 305, 306, 323])
def test_a_token_that_no_encoder_writes_is_refused(
    token: int, kind: str, make_codec: MakeCodec, chunks: list[bytes]
) -> None:
    """One without bytes, a member beyond the vocabulary, a bucket beyond it; other lanes go on, and this one again."""
    codec = make_codec(kind, Windowing(16, 4))
    n = codec.bucket_size
    cache = codec.transformer.new_cache(1, 16)
    weights, buckets = codec.predict(codec.transformer.hidden(cache, [Segment(0, 0, np.zeros(1, np.int32))]))
    bucket = np.array([min(token // n, (VOCAB_SIZE - 1) // n)], dtype=np.int32)
    encoder = TokenEncoder(n)
    encoder.encode(
        np.array([token], dtype=np.int32),
        buckets,
        codec.backend.member_frequencies(weights, bucket, n),
    )
    lanes = Lanes(codec, 2)
    good = _jobs(codec, chunks[1:4])
    refused, *others = _decode(lanes, 2, [(encoder.finish(), 100), *good])
    assert isinstance(refused, FormatError)
    assert str(refused) == "model payload: expected a token of 1 to 100 bytes, found one of 0"
    assert others == chunks[1:4]
    assert _decode(lanes, 2, good) == chunks[1:4]


def _raise_at(function: Callable[..., Any], call: int, error: BaseException) -> Callable[..., Any]:
    """`function`, which raises `error` when it is called for the `call`-th time, from 0 on."""
    n_calls = iter(range(1 << 30))

    def replacement(*arguments: Any, **named: Any) -> Any:
        if next(n_calls) == call:
            raise error
        return function(*arguments, **named)

    return replacement


def test_lanes_that_cannot_be_made_are_an_error_of_the_caller(
    make_codec: MakeCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a thread, where nobody would hear of it."""
    codec = make_codec("plain", Windowing(16, 4))
    error = MemoryError("no room for caches")
    monkeypatch.setattr(codec.transformer, "new_cache", _raise_at(codec.transformer.new_cache, 1, error))
    with pytest.raises(MemoryError, match="no room for caches"):
        LaneDecoder(codec, 4, 2)


@pytest.mark.parametrize("place", ["begin", "step", "finished", "end"])
@pytest.mark.parametrize("call", [0, 3])
def test_an_error_of_any_kind_reaches_all_who_wait(
    call: int, place: str, make_codec: MakeCodec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks in lanes, queued ones and later ones; those that were finished before are right."""
    codec = make_codec("plain", Windowing(16, 4))
    jobs = _jobs(codec, chunks)
    error = MemoryError("made here")
    monkeypatch.setattr(Lanes, place, _raise_at(getattr(Lanes, place), call, error))
    decoder = LaneDecoder(codec, 2, 1)
    futures = [decoder.submit(*job) for job in jobs]
    found = [future.exception(timeout=60) or future.result() for future in futures]
    assert found.count(error) >= len(chunks) - 4
    assert all(result in (chunk, error) for result, chunk in zip(found, chunks, strict=True))
    assert decoder.submit(*jobs[0]).exception(timeout=60) is error
    decoder.close()


def test_nobody_waits_for_threads_that_have_all_failed(make_codec: MakeCodec, chunks: list[bytes]) -> None:
    """Whichever of them meets a chunk, and also when no chunk was in a lane."""
    codec = make_codec("plain", Windowing(16, 4))
    jobs = _jobs(codec, chunks)

    def fail(*_arguments: object) -> None:
        raise RuntimeError("made here")

    codec.transformer.step = fail  # type: ignore[assignment, method-assign]
    decoder = LaneDecoder(codec, 4, 2)
    for _ in range(5):
        for future in [decoder.submit(*job) for job in jobs]:
            assert isinstance(future.exception(timeout=60), RuntimeError)
    decoder.close()


def test_a_thread_that_has_failed_leaves_the_others_to_end(
    make_codec: MakeCodec, chunks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chunk comes out right or with the error, and closing ends all threads."""
    codec = make_codec("plain", Windowing(16, 4))
    jobs = _jobs(codec, chunks) * 4
    error = RuntimeError("made here")
    monkeypatch.setattr(codec.transformer, "step", _raise_at(codec.transformer.step, 9, error))
    decoder = LaneDecoder(codec, 4, 2)
    futures = [decoder.submit(*job) for job in jobs]
    found = [future.exception(timeout=60) or future.result() for future in futures]
    assert error in found
    assert all(result in (chunk, error) for result, chunk in zip(found, chunks * 4, strict=True))
    decoder.close()
