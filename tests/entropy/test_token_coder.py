from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmzip.entropy import TokenDecoder, TokenEncoder, bucket_size
from llmzip.errors import FormatError
from llmzip.exact.reference import frequencies

Rows = NDArray[np.float32]
TOTAL = 1 << 24


def _shares(weights: Sequence[Sequence[int]]) -> Rows:
    return frequencies(np.array(weights, dtype=np.int64)).astype(np.float32)


def _encode(tokens: Sequence[int], buckets: Rows, members: Rows) -> bytes:
    encoder = TokenEncoder(buckets.shape[1])
    encoder.encode(np.array(tokens, dtype=np.int32), buckets, members)
    return encoder.finish()


def _decode(payload: bytes, buckets: Rows, members: Rows) -> list[int]:
    decoder = TokenDecoder(payload)
    n = buckets.shape[1]
    return [decoder.decode(b) * n + decoder.decode(m) for b, m in zip(buckets, members, strict=True)]


def _choices(tokens: Sequence[int], buckets: Rows, members: Rows) -> list[tuple[int, int]]:
    """(cumulative frequency, frequency) of each choice in its order."""
    n = buckets.shape[1]
    found = []
    for token, *rows in zip(tokens, buckets, members, strict=True):
        for symbol, row in zip(divmod(token, n), rows, strict=True):
            counts = row.astype(np.int64) + 1
            found.append((int(counts[:symbol].sum()), int(counts[symbol])))
    return found


def _encode_as_specified(choices: Sequence[tuple[int, int]]) -> bytes:
    """The writer of SPEC.md, section 9.3, in unbounded integers."""
    low, size, shifts = 0, 2**64 - 1, 0
    for before, frequency in choices:
        unit = size >> 24
        low, size = low + unit * before, unit * frequency
        if size < 2**32:
            low, size, shifts = low << 32, size << 32, shifts + 1
    if not choices:
        return b""
    point = (low + 2**32 - 1) >> 32
    words = [point >> 32 * i & 0xFFFFFFFF for i in range(shifts, -1, -1)]
    if ((low + size) >> 32) % 2**32 == point % 2**32:
        words.append(0)
    return b"".join(word.to_bytes(4, "little") for word in words)


def _decode_as_specified(payload: bytes, rows: Sequence[Rows]) -> list[int]:
    """The reader of SPEC.md, section 9.3."""
    words = [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4)] + [0, 0]
    point, place, low, size, symbols = words[0] << 32 | words[1], 2, 0, 2**64 - 1, []
    for row in rows:
        ends = np.cumsum(row.astype(np.int64) + 1)
        unit = size >> 24
        symbol = int((ends <= (point - low) % 2**64 // unit).sum())
        frequency = int(row[symbol]) + 1
        low, size = (low + unit * (int(ends[symbol]) - frequency)) % 2**64, unit * frequency
        if size < 2**32:
            following = words[place] if place < len(words) else 0
            low, size, point = (low << 32) % 2**64, size << 32, (point << 32 | following) % 2**64
            place += 1
        symbols.append(symbol)
    return symbols


@st.composite
def _coded(draw: st.DrawFn) -> tuple[list[int], Rows, Rows]:
    """Tokens with frequencies from flat to nearly certain, the token not always a likely one."""
    n = draw(st.integers(2, 9))
    n_tokens = draw(st.integers(0, 30))
    weight = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 2**36))
    row = st.lists(weight, min_size=n, max_size=n).filter(any)
    rows = draw(st.lists(row, min_size=2 * n_tokens, max_size=2 * n_tokens))
    tokens = draw(st.lists(st.integers(0, n * n - 1), min_size=n_tokens, max_size=n_tokens))
    shares = _shares(rows) if rows else np.empty((0, n), np.float32)
    return tokens, shares[::2], shares[1::2]


@given(_coded())
def test_tokens_come_back_and_the_payload_is_the_specified_one(case: tuple[list[int], Rows, Rows]) -> None:
    """For all frequencies; a coder written from SPEC.md alone makes the same bytes and reads them."""
    tokens, buckets, members = case
    payload = _encode(tokens, buckets, members)
    assert _decode(payload, buckets, members) == tokens
    assert payload == _encode_as_specified(_choices(tokens, buckets, members))
    if tokens:
        rows = [row for pair in zip(buckets, members, strict=True) for row in pair]
        symbols = [symbol for token in tokens for symbol in divmod(token, buckets.shape[1])]
        assert _decode_as_specified(payload, rows) == symbols


def test_carries_run_through_words_of_ones() -> None:
    """The last symbol again and again pushes the low end against the carry; then a small symbol decides."""
    for last in range(4):
        tokens = [3] * 60 + [last]
        rows = _shares([[1, 10**9]] * 61)
        payload = _encode(tokens, rows, rows)
        assert payload == _encode_as_specified(_choices(tokens, rows, rows))
        assert _decode(payload, rows, rows) == tokens


def test_payload_is_pinned() -> None:
    """These bytes must never change."""
    buckets = _shares([[5, 3, 1], [1, 1, 1], [0, 0, 7], [1000, 1, 1]])
    members = _shares([[1, 2, 3], [9, 0, 0], [4, 4, 4], [1, 10**9, 1]])
    tokens = [5, 0, 6, 3] * 5
    payload = _encode(tokens, np.tile(buckets, (5, 1)), np.tile(members, (5, 1)))
    assert payload.hex(" ", 4) == "a1c39ebd 45750131 aea81986 04d794f5 bf681946 8879a596 ccdddcae"


def test_nothing_takes_no_bytes() -> None:
    """A payload without tokens is empty."""
    assert TokenEncoder(4).finish() == b""


def test_encoding_in_pieces_gives_the_same_payload() -> None:
    """How many tokens a call brings does not matter."""
    rng = np.random.default_rng(1)
    buckets, members = _shares(rng.integers(0, 99, (40, 7)).tolist()), _shares(rng.integers(1, 99, (40, 7)).tolist())
    tokens = rng.integers(0, 49, 40).astype(np.int32)
    encoder = TokenEncoder(7)
    for part in (slice(0, 1), slice(1, 30), slice(30, 40)):
        encoder.encode(tokens[part], buckets[part], members[part])
    assert encoder.finish() == _encode(tokens.tolist(), buckets, members)


def test_cost_is_the_entropy() -> None:
    """Payloads are within 0.1 % and 8 bytes of what the frequencies promise."""
    rng = np.random.default_rng(2)
    n, n_tokens = 20, 4000
    weights = (2.0 ** rng.uniform(0, 20, (2 * n_tokens, n))).astype(np.int64)
    shares = _shares(weights.tolist())
    symbols = [rng.choice(n, p=row / row.sum()) for row in weights]
    tokens = [bucket * n + member for bucket, member in zip(symbols[::2], symbols[1::2], strict=True)]
    bits = sum(24 - math.log2(shares[i, symbol] + 1) for i, symbol in enumerate(symbols))
    size = len(_encode(tokens, shares[::2], shares[1::2]))
    assert bits / 8 <= size + 8
    assert size <= bits / 8 * 1.001 + 8


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_payload_of_other_than_whole_words_is_refused(size: int) -> None:
    """Before anything is decoded."""
    with pytest.raises(FormatError, match="multiple of 4"):
        TokenDecoder(bytes(size))


def test_words_that_no_encoder_writes_are_refused() -> None:
    """A point beyond the range is an error of the format, not of the library."""
    flat = _shares([[1, 1, 1]])[0]
    with pytest.raises(FormatError, match="range coder"):
        TokenDecoder(b"\xff" * 8).decode(flat)


def test_any_words_decode_or_are_refused() -> None:
    """Random words, and reading far beyond their end, give symbols or the error."""
    rng = np.random.default_rng(3)
    flat = _shares([[1, 100, 7, 3]])[0]
    for size in (0, 4, 8, 40):
        decoder = TokenDecoder(rng.bytes(size))
        try:
            assert all(0 <= decoder.decode(flat) < 4 for _ in range(200))
        except FormatError:
            continue


@pytest.mark.parametrize("vocab_size", [1, 2, 4, 5, 16, 17, 49152, 50257, 262144, 2**24 - 1])
def test_bucket_size_is_the_least_whose_square_holds_the_vocabulary(vocab_size: int) -> None:
    """One less would leave tokens out."""
    n = bucket_size(vocab_size)
    assert (n - 1) ** 2 < vocab_size <= n * n
