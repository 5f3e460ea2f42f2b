from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.conditioning import network_file as networks
from llmzip.conditioning.hyperpriors import Coordinates, quantise
from llmzip.conditioning.learned import Learned, quantise_learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import (
    MAGIC,
    find_network,
    pack_network,
    read_network,
    register_network,
    unpack_network,
)
from llmzip.conditioning.normal import normal_frequencies, sigma_of
from llmzip.entropy import ParameterDecoder, ParameterEncoder
from llmzip.errors import (
    ChecksumError,
    ConditionerInvalidError,
    ConditionerMissingError,
    ConfigError,
    FormatError,
    LimitError,
    NotAnArchiveError,
    TruncatedError,
)
from llmzip.exact.reference import frequencies
from llmzip.format.varint import pack_varint

ARTEFACT_ID = "ab" * 32


def _network(P: int = 2, D: int = 5, k: int = 2, U: int = 3, seed: int = 0) -> HyperpriorNetwork:
    rng = np.random.default_rng(seed)
    return HyperpriorNetwork(
        ARTEFACT_ID,
        int(rng.integers(0, 16)),
        rng.integers(100, 200, P),
        rng.integers(0, 256, (P, D)),
        rng.integers(-300, 300, (P, D)),
        rng.integers(-128, 128, (P, D, k)),
        rng.integers(-128, 128, (P, D, k)),
        rng.integers(1, 65536, (P, k, 2 * U + 1)),
    )


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files nor registered networks, but those of the test."""
    monkeypatch.setattr(networks, "NETWORK_FOLDERS", [])
    monkeypatch.setattr(networks, "_NETWORKS", {})


def _encode(coordinates: Coordinates) -> bytes:
    encoder = ParameterEncoder()
    coordinates.write(encoder)
    return encoder.finish()


@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([(0, 0), (1, 1), (2, 3), (3, 31)]),
    st.integers(0, 1000),
    st.floats(0.01, 300),
)
def test_rows_are_read_as_they_were_written(P: int, D: int, shape: tuple[int, int], seed: int, size: float) -> None:
    """Whatever the network and the values: the latents that a writer finds, and every level."""
    network = _network(P, D, *shape, seed=seed)
    register_network(network)
    values = (np.random.default_rng(seed).normal(size=D) * size).astype(np.float32)
    coordinates = quantise_learned(values, seed % P, network, 1.0)
    found = Coordinates.read(ParameterDecoder(_encode(coordinates)), D)
    assert found.hyperprior == coordinates.hyperprior
    assert np.array_equal(found.symbols, coordinates.symbols)
    assert np.array_equal(found.values(), np.rint(values))


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(-31, 31), st.integers(-31, 31), st.integers(1, 40))
def test_distributions_are_those_of_the_specification(seed: int, D: int, u: int, v: int, radius: int) -> None:
    """Python's integers give the same by the written formulas."""
    network = _network(1, D, 2, 31, seed)
    hyperprior = Learned(network, 0, radius, (u, v))
    rows = np.concatenate([rows for _, rows in hyperprior._frequencies()])
    for i in range(D):
        w, m = network.scale_slopes[0, i].tolist(), network.mean_slopes[0, i].tolist()
        code = min(max(int(network.scales[0, i]) + ((w[0] * u + w[1] * v) >> 4), 0), 255)
        mean = int(network.means[0, i]) + ((m[0] * u + m[1] * v) >> network.mean_shift)
        mean = min(max(mean, -16 * radius), 16 * radius)
        assert rows[i].tolist() == normal_frequencies(sigma_of(code), mean, radius).tolist()
    expected = frequencies(network.latent_weights[0]) + 1
    assert network.latent_frequencies(0).tolist() == expected.tolist()
    assert expected.sum(axis=1).tolist() == [2**24, 2**24]


def test_parts_in_memory_do_not_change_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of frequencies are made some at a time."""
    network = _network(1, 50)
    values = np.random.default_rng(1).normal(size=50).astype(np.float32) * 20
    whole = _encode(quantise_learned(values, 0, network, 1.0))
    monkeypatch.setattr("llmzip.conditioning.learned._CELLS", 100)
    assert _encode(quantise_learned(values, 0, network, 1.0)) == whole


def _pinned() -> HyperpriorNetwork:
    arrays = [[150], [[64, 80, 48]], [[0, 5, -9]], [[[16], [-20], [3]]], [[[0], [64], [-7]]], [[[1, 4, 1]]]]
    whole: tuple[Any, ...] = tuple(np.array(array, dtype=np.int64) for array in arrays)
    return HyperpriorNetwork(ARTEFACT_ID, 2, *whole)


def test_bytes_are_pinned() -> None:
    """These bytes must never change."""
    network = _pinned()
    body = ARTEFACT_ID + "0103010102" + "96" + "405030" + "00000500f7ff" + "10ec03" + "0040f9" + "010004000100"
    packed = MAGIC + bytes([59]) + bytes.fromhex(body)
    assert pack_network(network) == packed + zlib.crc32(packed).to_bytes(4, "little")
    assert network.id == hashlib.sha256(bytes.fromhex(body)).digest()[:4]
    coordinates = Coordinates(Learned(network, 0, 2, (1,)), np.array([2, 4, 1], dtype=np.int32), 150)
    assert _encode(coordinates).hex(" ", 4) == "213ca3e5 b6aed6ad"


def test_files_are_read_as_they_were_written() -> None:
    """With and without latents."""
    for network in (_network(), _network(3, 1, 0, 0), _pinned()):
        assert unpack_network(pack_network(network)) == network
        assert hash(unpack_network(pack_network(network))) == hash(network)
    assert _network() != _network(seed=1)


def _file(body: bytes) -> bytes:
    packed = MAGIC + pack_varint(len(body)) + body
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def _body(*numbers: int, rest: int = 0) -> bytes:
    return bytes.fromhex(ARTEFACT_ID) + b"".join(map(pack_varint, numbers)) + bytes(rest)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnArchiveError),
        (b"\x89LZC\r\n\x1a\x01" + pack_network(_network())[8:], NotAnArchiveError),
        (pack_network(_network())[:-1], TruncatedError),
        (pack_network(_network())[:-6] + bytes(6), ChecksumError),
        (pack_network(_network()) + b"\0", FormatError),
        (MAGIC + pack_varint((1 << 20) + 1), LimitError),
        (_file(_body(1025, 1, 0, 0, 0)), LimitError),
        (_file(_body(1, 65537, 0, 0, 0)), LimitError),
        (_file(_body(1, 1, 17, 1, 0)), LimitError),
        (_file(_body(1, 1, 1, 32, 0)), LimitError),
        (_file(_body(0, 1, 0, 0, 0)), LimitError),
        (_file(_body(1024, 65536, 16, 31, 0)), FormatError),
        (_file(_body(1, 1, 0, 0, 16, rest=4)), FormatError),
        (_file(_body(1, 1, 1, 0, 0, rest=8)), FormatError),
        (_file(_body(1, 1, 0, 1, 0, rest=4)), FormatError),
        (_file(_body(1, 1, 1, 1, 0, rest=12)), FormatError),
        (_file(_body(1, 1, 0, 0, 0, rest=5)), FormatError),
    ],
)
def test_files_that_are_none_are_refused(data: bytes, error: type[FormatError], tmp_path: Path) -> None:
    """Another magic, cut off, damaged, too much in it, too great, latents without weights."""
    with pytest.raises(error):
        unpack_network(data)
    path = tmp_path / "some.net"
    path.write_bytes(data)
    with pytest.raises(error):
        read_network(path)


def test_a_long_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """And one that is not there."""
    path = tmp_path / "hyperprior.net"
    with pytest.raises(ConditionerMissingError, match="expected a file"):
        read_network(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitError, match="found more"):
        read_network(path)


@given(st.integers(0, 2**32), st.binary(max_size=3), st.booleans())
def test_damaged_files_are_read_or_refused(place: int, change: bytes, repaired: bool) -> None:
    """Also where the checksum was made to fit."""
    data = bytearray(pack_network(_network()))
    start = place % len(data)
    data[start : start + len(change)] = change
    if repaired:
        data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    try:
        network = unpack_network(bytes(data))
    except FormatError:
        return
    assert pack_network(network) == bytes(data)


def test_networks_are_found_by_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folders that are known, or one deeper; damaged files beside them do not matter."""
    network, other = _network(), _network(seed=1)
    for path, data in {
        "a/hyperprior.net": pack_network(other),
        "b/hyperprior.net": pack_network(network),
        "x.net": b"?",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    with pytest.raises(ConditionerMissingError, match="a folder of models"):
        find_network(network.id)
    monkeypatch.setattr(networks, "NETWORK_FOLDERS", [lambda: [tmp_path / "none", tmp_path]])
    assert find_network(network.id) == network
    (tmp_path / "b/hyperprior.net").unlink()
    assert find_network(network.id) == network
    with pytest.raises(ConditionerMissingError, match=f"00000000, found none .* hyperprior.net into {tmp_path}"):
        find_network(bytes(4))


def test_missing_network_is_named() -> None:
    """Where coordinates are read."""
    network = _network()
    payload = _encode(quantise_learned(np.ones(5, dtype=np.float32), 0, network))
    with pytest.raises(ConditionerMissingError, match=network.id.hex()):
        Coordinates.read(ParameterDecoder(payload), 5)


@given(st.binary(max_size=60).map(lambda raw: raw + bytes(-len(raw) % 4)), st.sampled_from([0, 1, 5]))
def test_any_bytes_behind_a_network_are_read_or_refused(payload: bytes, n: int) -> None:
    """They give levels within the radius, or the error of the format."""
    network = _network()
    register_network(network)
    start = ParameterEncoder()
    for byte in network.id:
        start.uniform(byte, 256)
    # The first word of the stream names the network; what is behind it is foreign.
    decoder = ParameterDecoder(start.finish()[:4] + payload)
    try:
        hyperprior = Learned.read(decoder, n)
        symbols = hyperprior.read_symbols(decoder, n)
    except (FormatError, ConditionerMissingError):
        return
    assert 0 <= symbols.min() <= symbols.max() < len(hyperprior.levels)


def test_rows_of_another_length_are_refused() -> None:
    """A network is for one width."""
    network = _network()
    register_network(network)
    with pytest.raises(FormatError, match="expected 5 coordinates, found 6"):
        Coordinates.read(ParameterDecoder(_encode(quantise_learned(np.ones(5, dtype=np.float32), 0, network))), 6)


@pytest.mark.parametrize(
    ("values", "part", "step", "message"),
    [
        (np.ones(4), 0, None, "5 finite values"),
        (np.array([1, 2, 3, 4, np.nan]), 0, None, "finite"),
        (np.ones(5), 2, None, "a row of 0 to 1, found 2"),
        (np.ones(5), 0, 0.0, "positive step"),
        (np.full(5, 3000.0), 0, 1.0, "at most 2047 steps"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    values: NDArray[np.float64], part: int, step: float | None, message: str
) -> None:
    """A configuration that contradicts itself or the values."""
    with pytest.raises(ConfigError, match=message):
        quantise_learned(values.astype(np.float32), part, _network(), step)


@pytest.mark.parametrize(
    ("artefact_id", "n_parts", "width", "message"),
    [
        ("cd" * 32, 2, 5, "that of model cdcdcdcdcd, found ababababab's"),
        (ARTEFACT_ID, 3, 5, "one for 3 rows of 5, found 2 of 5"),
        (ARTEFACT_ID, 2, 6, "one for 2 rows of 6, found 2 of 5"),
    ],
)
def test_a_network_is_for_one_model(artefact_id: str, n_parts: int, width: int, message: str) -> None:
    """By its id, and so by its shape."""
    network = _network()
    network.check(ARTEFACT_ID, 2, 5)
    with pytest.raises(ConditionerInvalidError, match=message):
        network.check(artefact_id, n_parts, width)


def test_numbers_out_of_range_make_no_network() -> None:
    """A caller's mistake."""
    network = _network()
    with pytest.raises(ValueError, match="scales of 0 to 255"):
        HyperpriorNetwork(
            ARTEFACT_ID, 0, network.step_codes, network.scales + 256, network.means, network.scale_slopes,
            network.mean_slopes, network.latent_weights,
        )  # fmt: skip
    with pytest.raises(ValueError, match="expected arrays for 2 rows of 5"):
        HyperpriorNetwork(
            ARTEFACT_ID, 0, network.step_codes, network.scales[:, 1:], network.means, network.scale_slopes,
            network.mean_slopes, network.latent_weights,
        )  # fmt: skip


def test_zeros_cost_nothing_but_the_header() -> None:
    """And have no latents."""
    coordinates = quantise_learned(np.zeros(5, dtype=np.float32), 1, _network())
    assert isinstance(coordinates.hyperprior, Learned)
    assert (coordinates.hyperprior.radius, coordinates.hyperprior.latents) == (0, (0, 0))
    assert coordinates.cost().coordinate_bits == 0
    assert abs(coordinates.cost().total_bits - (2 + 8 + 32 + 1 + 1)) < 1e-6


def test_latents_make_rows_cheaper_and_scales_beat_one_normal_distribution() -> None:
    """A network that knows scales by coordinate; the writer finds how great a row is."""
    rng = np.random.default_rng(0)
    D = 400
    codes = rng.integers(32, 112, D)
    slopes = np.full((1, D, 1), 127)
    zeros = np.zeros((1, D), dtype=np.int64)
    weights = np.full((1, 1, 15), 1)
    network = HyperpriorNetwork(ARTEFACT_ID, 0, np.array([184]), codes[None], zeros, slopes, 0 * slopes, weights)
    scales = np.array([sigma_of(int(code)) / 256 for code in codes])
    values = (rng.normal(size=D) * scales * 2).astype(np.float32)
    coordinates = quantise_learned(values, 0, network)
    assert isinstance(coordinates.hyperprior, Learned)
    assert coordinates.hyperprior.latents == (2,)
    symbols = coordinates.symbols
    assert coordinates.hyperprior.bits(symbols) < Learned(network, 0, coordinates.hyperprior.radius, (0,)).bits(symbols)
    assert coordinates.cost().total_bits < 0.95 * quantise(values, "gaussian", step=1.0).cost().total_bits
