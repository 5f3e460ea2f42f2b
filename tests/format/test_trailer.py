from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import FormatError
from llmzip.format.chunk_record import TrailerMark, read_record
from llmzip.format.reader import ByteReader
from llmzip.format.trailer import IndexPoint, Trailer, read_trailer


def _read(packed: bytes) -> Trailer:
    reader = ByteReader(io.BytesIO(packed))
    mark = read_record(reader)
    assert isinstance(mark, TrailerMark)
    return read_trailer(reader, mark.n_index, 0)


@given(
    st.lists(st.tuples(st.integers(1, 2**37), st.integers(1, 2**37)), max_size=20), st.binary(min_size=6, max_size=6)
)
def test_every_trailer_comes_back(deltas: list[tuple[int, int]], digest: bytes) -> None:
    """Reading undoes packing."""
    points = [IndexPoint(0, 0)]
    for raw, offset in deltas:
        points.append(IndexPoint(points[-1].raw_offset + raw, points[-1].offset + offset))
    trailer = Trailer(tuple(points[1:]), digest)
    assert _read(trailer.pack()) == trailer


def test_a_length_that_does_not_fit_is_written_as_zero() -> None:
    """A long index is found by a scan, and still read in order."""
    trailer = Trailer(tuple(IndexPoint(i << 20, i << 20) for i in range(1, 12_000)), b"digest")
    assert trailer.pack()[-2:] == b"\0\0"
    assert _read(trailer.pack()) == trailer


def test_a_wrong_length_is_refused() -> None:
    """The length is that of the trailer that was read."""
    packed = Trailer((), b"digest").pack()
    assert packed.hex() == "03" + b"digest".hex() + "0700"
    with pytest.raises(FormatError) as caught:
        _read(packed[:-2] + b"\x08\0")
    assert caught.value.offset == 7
