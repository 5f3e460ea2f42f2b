from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.chunking import split


class _Dripping(io.BytesIO):
    """Gives a few bytes a read, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3))


@given(st.binary(max_size=300), st.integers(1, 40))
def test_chunks_join_to_the_input_and_keep_to_the_size(data: bytes, chunk_size: int) -> None:
    """Any bytes come back, in chunks that are neither empty nor too long."""
    chunks = list(split(io.BytesIO(data), chunk_size))
    assert b"".join(chunks) == data
    assert all(1 <= len(chunk) <= chunk_size for chunk in chunks)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_pipe_gives_the_same_chunks_as_a_file(data: bytes, chunk_size: int) -> None:
    """The cuts depend on the bytes, not on the reads."""
    assert list(split(_Dripping(data), chunk_size)) == list(split(io.BytesIO(data), chunk_size))


@given(st.text(alphabet="aé水🙂", max_size=100), st.integers(4, 40))
def test_characters_stay_whole(text: str, chunk_size: int) -> None:
    """No cut falls within a UTF-8 character if a chunk can hold one."""
    for chunk in split(io.BytesIO(text.encode()), chunk_size):
        chunk.decode()


@pytest.mark.parametrize(
    ("data", "chunks"),
    [
        pytest.param(b"12345\n789abc", [b"12345\n78", b"9abc"], id="line-end-before-last-quarter"),
        pytest.param(b"123456\n89abc", [b"123456\n", b"89abc"], id="line-end-in-last-quarter"),
        pytest.param(b"12345678\n9", [b"12345678", b"\n9"], id="line-end-just-behind"),
        pytest.param(b"12345678", [b"12345678"], id="exactly-one"),
        pytest.param(b"\x80" * 10, [b"\x80" * 8, b"\x80" * 2], id="no-boundary"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_cuts_of_eight_bytes(data: bytes, chunks: list[bytes]) -> None:
    """A cut prefers a line end in the last quarter, then a character boundary, then the size."""
    assert list(split(io.BytesIO(data), 8)) == chunks


def test_a_chunk_size_of_zero_is_refused() -> None:
    """The caller's mistake is a ValueError."""
    with pytest.raises(ValueError, match="at least 1"):
        list(split(io.BytesIO(b"x"), 0))
