from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.codec import Codec, Tokens
from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioner_set import Choice, ConditionerSet, Text
from llmzip.conditioning.conditioning import ChunkRows, Conditioning, Policy
from llmzip.conditioning.hyperpriors import quantise
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.errors import ConfigError, FormatError
from llmzip.exact.spec import ModelSpec
from llmzip.lanes import LaneDecoder
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing


def _vectors(spec: ModelSpec, n_prefix: int, *, shifted: bool, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    shape = Shape(n_prefix, (spec.n_layers + 1) * shifted, spec.width)
    groups = [rng.normal(size=rows * spec.width).astype(np.float32) for rows in shape.groups]
    return Vectors(shape, tuple(quantise(group, "gaussian", step=0.25) for group in groups))


@pytest.fixture(scope="module")
def conditioners(tiny_artefact: Artefact) -> ConditionerSet:
    """One of each kind: a string, a prefix, shifts, and both."""
    spec = tiny_artefact.spec
    text = Text(np.array([5, 300, 7, 7], dtype=np.int32))
    kinds = [(3, False), (0, True), (2, True)]
    vectors = [_vectors(spec, n, shifted=shifted, seed=i) for i, (n, shifted) in enumerate(kinds)]
    return ConditionerSet((text, *vectors))


@pytest.fixture(scope="module")
def plain(tiny_artefact: Artefact) -> Codec:
    """Windows of 64 tokens with 16 of overlap: several to a chunk."""
    return Codec(tiny_artefact, Windowing(64, 16))


@pytest.fixture(scope="module")
def chunks(sample_text: bytes) -> list[bytes]:
    """Chunks of many lengths, some not text."""
    cuts = [0, 1, 3, 40, 41, 300, 900, 1000, 2400, 2404]
    return [sample_text[a:b] for a, b in itertools.pairwise(cuts)] + [bytes(range(256))]


def _encode(codec: Codec, chunks: Sequence[bytes], n_threads: int = 1) -> list[bytes]:
    with ThreadPoolExecutor(n_threads) as pool:
        return list(codec.encode(codec.tokenise(chunks), pool.map))


def _decode(codec: Codec, payloads: Sequence[bytes], chunks: Sequence[bytes], lanes: int) -> list[bytes]:
    decoder = LaneDecoder(codec, lanes, 1)
    try:
        futures = [decoder.submit(payload, len(chunk)) for payload, chunk in zip(payloads, chunks, strict=True)]
        return [future.result(timeout=60) for future in futures]
    finally:
        decoder.close()


@pytest.mark.parametrize("policy", [1, 2, 3, 4, Policy.AUTO, Policy.BEST])
@pytest.mark.parametrize("lanes", [1, 4])
def test_chunks_come_back(
    plain: Codec, conditioners: ConditionerSet, chunks: list[bytes], policy: Policy | int, lanes: int
) -> None:
    """Under each conditioner and any choice of them, whatever the lanes, by a codec that is not told the choice."""
    writer = plain.with_conditioning(Conditioning(conditioners, policy=policy))
    reader = plain.with_conditioning(Conditioning(conditioners))
    payloads = _encode(writer, chunks)
    assert payloads == _encode(writer, chunks, n_threads=2)
    assert _decode(reader, payloads, chunks, lanes) == chunks


def test_the_best_is_the_smallest(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """Of all choices, none of them left out."""
    each = [_encode(plain.with_conditioning(Conditioning(conditioners, policy=i)), chunks) for i in range(5)]
    best = _encode(plain.with_conditioning(Conditioning(conditioners, policy=Policy.BEST)), chunks)
    assert best == [min(payloads, key=len) for payloads in zip(*each, strict=True)]
    assert len({tuple(payloads) for payloads in each}) == 5


def test_no_conditioner_costs_only_the_choice(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """A tenth of a bit, which is a word now and then."""
    without = _encode(plain, chunks)
    chosen = _encode(plain.with_conditioning(Conditioning(conditioners, policy=Policy.NONE)), chunks)
    assert all(0 <= len(b) - len(a) <= 4 for a, b in zip(without, chosen, strict=True))


def test_the_chooser_says_what_is_tried(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """None, and the two of the greatest estimates that are worth it."""
    embedding = plain.artefact.parameters.matrices["embed"]
    (tokens,) = plain.tokenise(chunks[-3:-2])
    for constants, numbers in (([0, 0, 9, 1], [0, 3, 4]), ([-1, -1, -1, -1], [0]), ([1e-9, 0, 2, 0], [0, 3])):
        chooser = _chooser(plain, constants)
        found = Conditioning(conditioners, chooser=chooser).candidates(tokens, embedding)
        assert [choice.number for choice in found] == numbers


def test_what_a_sample_leaves(conditioners: ConditionerSet) -> None:
    """None where nothing gains by much; what gains for certain; none and the best where the sample cannot tell."""
    conditioning = Conditioning(conditioners)
    choices = [Choice(number) for number in range(3)]
    none = np.full(256, 6.0)
    noise = np.random.default_rng(0).normal(size=(2, 256))
    for gains, left in (
        ([-0.01, -0.5], [0]),
        ([0.0, 0.5], [2]),
        ([0.6, 0.5], [1]),
        ([0.03, -0.2], [0]),
        ([0.1, -0.2], [0, 1]),
        ([0.0002, 0.0], [0]),
    ):
        steered = 6.0 - np.array(gains)[:, None] - (noise - noise.mean(axis=1, keepdims=True))
        found = conditioning.narrowed(choices, np.vstack([none, steered]), 4000)
        assert [choice.number for choice in found] == left, gains


def test_an_uncertain_choice_is_made_by_size(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """A text is never longer by more than what says that it has no conditioner."""
    codec = plain.with_conditioning(Conditioning(conditioners, chooser=_chooser(plain, [9, 9, 9, 9])))
    none = plain.with_conditioning(Conditioning(conditioners, policy=Policy.NONE))
    for payload, other in zip(_encode(codec, chunks), _encode(none, chunks), strict=True):
        assert len(payload) <= len(other)


def test_a_chooser_that_errs_does_no_harm(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """Candidates are compared on a part of the chunk, and noise gains nothing there."""
    noise = ConditionerSet(conditioners.entries[2:])
    codec = plain.with_conditioning(Conditioning(noise, chooser=_chooser(plain, [9, 9])))
    none = plain.with_conditioning(Conditioning(noise, policy=Policy.NONE))
    texts = [chunk for chunk in chunks if len(chunk) > 250][:-1]
    assert _encode(codec, texts) == _encode(none, texts)


def test_a_chooser_that_is_right_is_followed(plain: Codec, conditioners: ConditionerSet, chunks: list[bytes]) -> None:
    """What is smaller by much on all of the chunk is so on a part of it."""
    each = [_encode(plain.with_conditioning(Conditioning(conditioners, policy=i)), chunks) for i in range(5)]
    codec = plain.with_conditioning(Conditioning(conditioners, chooser=_chooser(plain, [9, 9, 0, 0])))
    for i, payload in enumerate(_encode(codec, chunks)):
        sizes = [len(each[number][i]) for number in (0, 1, 2)]
        assert len(payload) in sizes
        assert len(payload) <= min(sizes) + 0.05 * sizes[0]


def test_what_only_a_beginning_gains_is_not_taken_for_the_whole(
    plain: Codec, conditioners: ConditionerSet, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample's first half is context, unless the sample is the whole chunk."""
    codec = plain.with_conditioning(Conditioning(conditioners, chooser=_chooser(plain, [9, 0, 0, 0])))
    monkeypatch.setattr(codec, "_bits", _bits_of_a_good_beginning)
    long, short = codec.tokenise([sample_text[:4000], sample_text[:40]])
    assert len(long) > 64 > 32 > len(short)
    assert [choice.number for choice in codec._choices(long)] == [0]
    assert [choice.number for choice in codec._choices(short)] == [0, 1]


def _bits_of_a_good_beginning(tokens: Tokens, choice: Choice) -> NDArray[np.float64]:
    """Of eight bits a token, any conditioner saves one in the first half, and costs a hundredth in the second."""
    gains = np.where(np.arange(len(tokens)) < len(tokens) // 2, 1.0, -0.01)
    return 8.0 - gains * (choice.number > 0)


def _chooser(codec: Codec, constants: Sequence[float]) -> Chooser:
    weights = np.zeros((codec.artefact.spec.width + 1, len(constants)), dtype=np.float32)
    weights[-1] = constants
    return Chooser(weights, weights[:, :0])


@pytest.fixture(scope="module")
def bringing(plain: Codec) -> Conditioning:
    """Chunks may bring vectors, beside an entry; those that they have are noise by the tokens they begin with."""
    spec = plain.artefact.spec
    entry = _vectors(spec, 0, shifted=True, seed=9)
    found = ConditionerSet((entry,), chunk_vectors=ChunkVectors.of(spec))

    def noise(tokens: Tokens) -> ChunkRows:
        rows = np.random.default_rng(int(tokens[0])).normal(0, 0.01, (spec.n_layers + 1, spec.width))
        return ChunkRows(rows.astype(np.float32), [0.01] * len(rows))

    return Conditioning(found, trainer=noise)


def _bringing_all(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """A codec whose chunks bring their vectors whether that pays or not."""
    monkeypatch.setattr(codec, "_shared_choices", lambda tokens: [Choice()] if len(tokens) <= 64 else [])
    return codec


@pytest.mark.parametrize("lanes", [1, 4])
def test_chunks_that_bring_vectors_come_back(
    plain: Codec, bringing: Conditioning, chunks: list[bytes], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a codec that does not have them; what is before them is coded as without."""
    codec = _bringing_all(plain.with_conditioning(bringing), monkeypatch)
    payloads = _encode(codec, chunks)
    assert payloads == _encode(codec, chunks, n_threads=2)
    reader = plain.with_conditioning(Conditioning(bringing.set))
    assert _decode(reader, payloads, chunks, lanes) == chunks
    none = _encode(plain.with_conditioning(Conditioning(bringing.set, policy=Policy.NONE)), chunks)
    with_vectors = [i for i, tokens in enumerate(plain.tokenise(chunks)) if len(tokens) > 64]
    assert with_vectors
    for i, (payload, other) in enumerate(zip(payloads, none, strict=True)):
        assert (len(payload) > len(other) + 100) == (i in with_vectors)


def test_vectors_that_do_not_pay_are_left_out(plain: Codec, bringing: Conditioning, chunks: list[bytes]) -> None:
    """As noise never does; then all that was tried is no vectors."""
    without = Conditioning(bringing.set)
    assert _encode(plain.with_conditioning(bringing), chunks) == _encode(plain.with_conditioning(without), chunks)
    assert plain.with_conditioning(bringing).canary() == plain.with_conditioning(without).canary()
    entry_alone = Conditioning(ConditionerSet(bringing.set.entries))
    assert plain.with_conditioning(bringing).canary() != plain.with_conditioning(entry_alone).canary()


@pytest.mark.parametrize("damage", range(12))
def test_damaged_vectors_are_another_text_or_an_error(
    plain: Codec, bringing: Conditioning, sample_text: bytes, damage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of that chunk alone: its neighbour in the next lane does not notice."""
    chunk = sample_text[:900]
    codec = _bringing_all(plain.with_conditioning(bringing), monkeypatch)
    (payload,) = _encode(codec, [chunk])
    changed = bytearray(payload)
    changed[40 + 24 * damage] ^= 0x5A
    decoder = LaneDecoder(plain.with_conditioning(Conditioning(bringing.set)), 2, 1)
    try:
        futures = [decoder.submit(bytes(one), len(chunk)) for one in (changed, payload)]
        error = futures[0].exception(timeout=60)
        assert isinstance(error, FormatError) or (error is None and futures[0].result() != chunk)
        assert futures[1].result(timeout=60) == chunk
    finally:
        decoder.close()


def test_the_canary_knows_the_conditioners(plain: Codec, conditioners: ConditionerSet) -> None:
    """Each of them, in their order, and how they are chosen does not matter."""
    kinds = [
        Conditioning(),
        Conditioning(conditioners),
        *(Conditioning(ConditionerSet((entry,))) for entry in conditioners.entries),
        Conditioning(ConditionerSet(conditioners.entries[::-1])),
    ]
    canaries = [plain.with_conditioning(kind).canary() for kind in kinds]
    assert canaries[0] == plain.canary()
    assert len(set(canaries)) == len(kinds)
    assert plain.with_conditioning(Conditioning(conditioners, policy=Policy.BEST)).canary() == canaries[1]


def test_a_conditioner_leaves_room_for_text(plain: Codec) -> None:
    """One that does not is refused before anything is coded."""
    fits = ConditionerSet((_vectors(plain.artefact.spec, 47, shifted=False, seed=0),))
    chunk = [b"def f(): return 1"]
    codec = plain.with_conditioning(Conditioning(fits, policy=1))
    assert _decode(codec, _encode(codec, chunk), chunk, 1) == chunk
    too_long = ConditionerSet((_vectors(plain.artefact.spec, 48, shifted=False, seed=0),))
    with pytest.raises(ConfigError, match="expected more than 64 tokens for overlap and conditioner, found 64"):
        plain.with_conditioning(Conditioning(too_long))
