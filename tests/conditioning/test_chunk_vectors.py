from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.conditioning import network_file
from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioner_set import Choice, ConditionerSet, Text
from llmzip.conditioning.description import describe, lines_of
from llmzip.conditioning.learned import quantise_learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import register_network
from llmzip.conditioning.vectors import Vectors
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import ConditionerMissingError, FormatError
from llmzip.exact.spec import ModelSpec

SPEC = ModelSpec(
    "none", 50, width=8, n_layers=2, n_heads=1, n_kv_heads=1, head_width=8, ff_width=8, max_positions=64, bos_id=0
)
STEPS = [0.25, 0.5, 0.125]
Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


def _network(U: int, vocab_size: int, k: int = 2, P: int = 3, D: int = 8) -> HyperpriorNetwork:
    """One of random numbers; of `vocab_size` 0, of one that reads no text."""
    rng = np.random.default_rng(0)
    return HyperpriorNetwork(
        "ab" * 32,
        3,
        rng.integers(160, 180, P),
        rng.integers(60, 100, (P, D)),
        rng.integers(-16, 16, (P, D)),
        rng.integers(-64, 64, (P, D, k)),
        rng.integers(-64, 64, (P, D, k)),
        rng.integers(1, 65536, (P, k, 2 * U + 1)),
        2,
        rng.integers(-100, 100, (vocab_size, k)),
    )


NETWORKS = {"none": None, "latents": _network(3, 0), "text": _network(0, 50), "both": _network(3, 50)}


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No files, and the networks of this test alone."""
    monkeypatch.setattr(network_file, "NETWORK_FOLDERS", [])
    monkeypatch.setattr(network_file, "_NETWORKS", {})
    for network in NETWORKS.values():
        if network is not None:
            register_network(network)


def _rows(seed: int, size: float = 1.0) -> Floats:
    return np.random.default_rng(seed).normal(0, size, (3, 8)).astype(np.float32)


def _shifts(vectors: Vectors) -> Floats:
    shifts = vectors.conditioner().shifts
    assert shifts is not None
    return shifts


def _written(chunk_vectors: ChunkVectors, vectors: Vectors) -> bytes:
    encoder = ParameterEncoder()
    chunk_vectors.write_rows(encoder, vectors)
    return encoder.finish()


texts = st.lists(st.integers(0, 49), min_size=1, max_size=80).map(lambda ids: np.array(ids, dtype=np.int32))


@pytest.mark.parametrize("name", NETWORKS)
@given(text=texts, seed=st.integers(0, 99), size=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
def test_rows_come_back(name: str, text: Ids, seed: int, size: float) -> None:
    """Whatever they are coded under, given the same text; bits are those of the stream."""
    chunk_vectors = ChunkVectors.of(SPEC, NETWORKS[name])
    vectors = chunk_vectors.fit(_rows(seed, size), STEPS, text)
    stream = _written(chunk_vectors, vectors)
    again = chunk_vectors.read_rows(ParameterDecoder(stream), text)
    assert np.array_equal(_shifts(again), _shifts(vectors))
    assert _written(chunk_vectors, again) == stream
    assert abs(8 * len(stream) - chunk_vectors.bits(vectors)) <= 64


@pytest.mark.parametrize("name", NETWORKS)
def test_each_row_has_the_cheapest_hyperprior(name: str) -> None:
    """A network's own where the rows are as it expects, at the steps that it was trained with."""
    network, text = NETWORKS[name], np.arange(50, dtype=np.int32)
    chunk_vectors = ChunkVectors.of(SPEC, network)
    vectors = chunk_vectors.fit(_rows(1), STEPS, text)
    kinds = {group.hyperprior.name for group in vectors.groups}
    if network is None:
        assert kinds <= {"gaussian", "empirical"}
        assert [group.step_code for group in vectors.groups] == [168, 176, 160]
    else:
        assert "learned" in kinds
        assert [group.step_code for group in vectors.groups] == network.step_codes.tolist()
        plain = ChunkVectors.of(SPEC)
        assert chunk_vectors.bits(vectors) < plain.bits(plain.fit(_rows(1), STEPS, text))


@pytest.mark.parametrize("U", [0, 3])
@given(text=texts)
def test_text_moves_a_network_as_the_specification_says(U: int, text: Ids) -> None:
    """Python's integers give the same by the written formulas."""
    network = _network(U, 50)
    given_text = network.given(text)
    table = network.text_weights.tolist()
    latents = [sum(table[t][j] for t in text.tolist()) // (len(text) << 2) for j in range(2)]
    v = [min(max(latent, -31), 31) for latent in latents]
    for p in range(3):
        for i in range(8):
            w, m = network.scale_slopes[p, i].tolist(), network.mean_slopes[p, i].tolist()
            code = min(max(int(network.scales[p, i]) + ((w[0] * v[0] + w[1] * v[1]) >> 4), 0), 255)
            mean = int(network.means[p, i]) + ((m[0] * v[0] + m[1] * v[1]) >> 3)
            assert (int(given_text.scales[p, i]), int(given_text.means[p, i])) == (code, mean)
    assert (given_text.n_latents, given_text.latent_radius, given_text.reads_text) == ((2 if U else 0), U, False)


def test_other_texts_give_other_distributions() -> None:
    """So that rows are read wrongly, or refused, behind another text than they were written behind."""
    chunk_vectors = ChunkVectors.of(SPEC, NETWORKS["text"])
    texts = [np.full(9, token, dtype=np.int32) for token in (3, 4)]
    network = NETWORKS["text"]
    assert network is not None
    first = network.given(texts[0])
    assert first != network.given(texts[1])
    groups = tuple(quantise_learned(row, part, first) for part, row in enumerate(_rows(2)))
    rows = Vectors(chunk_vectors.shape, groups)
    stream = _written(chunk_vectors, rows)
    try:
        other = chunk_vectors.read_rows(ParameterDecoder(stream), texts[1])
    except FormatError:
        return
    assert not np.array_equal(_shifts(other), _shifts(rows))


@given(st.binary(max_size=200).map(lambda data: data[: len(data) // 4 * 4]), st.sampled_from(list(NETWORKS)))
def test_any_bytes_are_rows_or_refused(data: bytes, name: str) -> None:
    """Of finite numbers."""
    try:
        found = ChunkVectors.of(SPEC, NETWORKS[name]).read_rows(ParameterDecoder(data), np.zeros(3, np.int32))
    except FormatError:
        return
    assert np.isfinite(_shifts(found)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_may_name_no_network(name: str) -> None:
    """Neither one that is here nor another: damage would look like it, and end more than its chunk."""
    network = NETWORKS["latents"]
    assert network is not None
    for named in (network, _network(1, 0)):
        encoder = ParameterEncoder()
        if NETWORKS[name] is not None:
            encoder.uniform(0, 2)
        quantise_learned(_rows(1)[0], 0, named).write(encoder)
        with pytest.raises(FormatError, match="expected one that names no network, found learned"):
            ChunkVectors.of(SPEC, NETWORKS[name]).read_rows(ParameterDecoder(encoder.finish()), np.zeros(3, np.int32))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_entries", [0, 2])
def test_a_set_says_that_chunks_bring_vectors(name: str, n_entries: int) -> None:
    """With entries beside or without; the last choice is the chunk's own."""
    entries = (Text(np.array([1, 2], dtype=np.int32)),) * n_entries
    found = ConditionerSet(entries, chunk_vectors=ChunkVectors.of(SPEC, NETWORKS[name]))
    body = found.pack(SPEC)
    again = ConditionerSet.unpack(body, SPEC)
    assert again.pack(SPEC) == body
    assert again.chunk_vectors == found.chunk_vectors
    assert (again.n_entries, again.n_choices) == (n_entries, n_entries + 2)
    assert [again.brings_vectors(Choice(i)) for i in range(n_entries + 2)] == [False] * (n_entries + 1) + [True]
    facts = describe(again)
    network = NETWORKS[name]
    assert facts["chunks_bring_vectors"] == ("of any distribution" if network is None else network.id.hex())
    assert any(line.startswith("chunks bring vectors: ") for line in lines_of(facts))


def test_a_set_is_refused_without_its_network() -> None:
    """By its name; and with one that is for another model."""
    absent = _network(1, 0)
    body = ConditionerSet(chunk_vectors=ChunkVectors.of(SPEC, absent)).pack(SPEC)
    with pytest.raises(ConditionerMissingError, match=absent.id.hex()):
        ConditionerSet.unpack(body, SPEC)
    for other in (_network(1, 0, P=2), _network(1, 0, D=9), _network(1, 49)):
        register_network(other)
        with pytest.raises(FormatError, match="network: expected one for rows, width and tokens"):
            ChunkVectors.of(SPEC, other)
