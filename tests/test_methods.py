from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.format import Method
from llmzip.general import decompress_general
from llmzip.methods import looks_like_text, plan

RANDOM = random.Random(1).randbytes(4000)
LINES = [RANDOM[i : i + 60].hex().encode() for i in range(0, 480, 60)]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=80), st.none() | st.integers(0, 90)), min_size=1, max_size=9))
def test_parts_join_to_the_chunks(chunks: list[tuple[bytes, int | None]]) -> None:
    """Whatever the model made of them; no part costs more than its raw bytes, none is empty."""
    raw = [chunk for chunk, _ in chunks]
    parts = plan(raw, [None if size is None else bytes(size) for _, size in chunks])
    assert b"".join(part.raw for part in parts) == b"".join(raw)
    for part in parts:
        assert part.raw
        assert len(part.payload) <= len(part.raw)
        assert part.method is not Method.STORED or part.payload == part.raw


def test_the_model_keeps_the_chunks_that_it_wins() -> None:
    """Each by itself, in order."""
    parts = plan(LINES, [b"tiny"] * 8)
    assert [part.method for part in parts] == [Method.MODEL] * 8
    assert [part.raw for part in parts] == LINES


def test_neighbours_that_the_model_lost_become_one_chunk() -> None:
    """A general compressor gains from length, and stored bytes need one record only."""
    chunks = [LINES[0], RANDOM[:500], RANDOM[500:900], LINES[1]]
    parts = plan(chunks, [b"tiny", None, None, b"tiny"])
    assert [part.method for part in parts] == [Method.MODEL, Method.STORED, Method.MODEL]
    assert parts[1].raw == RANDOM[:900]


def test_long_repeats_become_one_chunk() -> None:
    """Even where the model wins each chunk alone."""
    parts = plan([RANDOM] * 5, [RANDOM[:3500]] * 5)
    assert [part.method for part in parts] == [Method.GENERAL]
    assert decompress_general(parts[0].payload, 20000) == RANDOM * 5


def test_what_nothing_compresses_is_stored() -> None:
    """As one chunk."""
    assert [part.method for part in plan([RANDOM[:2000], RANDOM[2000:]], [None, RANDOM + RANDOM])] == [Method.STORED]


def test_a_head_that_compresses_is_a_chunk_of_its_own() -> None:
    """Before stored bytes, if it saves more than what a second chunk costs."""
    head, rest = bytes(byte & 0x3F for byte in RANDOM[:1024]), random.Random(2).randbytes(100_000)
    parts = plan([head + rest], [None])
    assert [part.method for part in parts] == [Method.GENERAL, Method.STORED]
    assert len(parts[0].raw) == 1024
    assert len(parts[0].payload) < 900
    assert b"".join(part.raw for part in parts) == head + rest
    assert [part.method for part in plan([head[:100] + rest], [None])] == [Method.STORED]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", True),
        (b"plain", True),
        ("naïve ☃ 𝄞".encode(), True),
        (b"\x00\x01\x02", False),
        (b"\t\r\n\f\v\b\x1b[0m" * 9, True),
        (b"\0" + b"123456789", True),
        (b"\x7f" + b"12345678", False),
        (bytes(1000), False),
        ("é".encode("latin-1") + b"123456789", True),
        ("é".encode("latin-1") + b"12345678", False),
        (RANDOM, False),
    ],
)
def test_text_has_at_most_a_tenth_of_invalid_bytes(raw: bytes, expected: bool) -> None:
    """Text of any script, with the control characters of layout and of terminals; not NULs, which take a token each."""
    assert looks_like_text(raw) is expected
