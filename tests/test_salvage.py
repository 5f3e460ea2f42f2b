from __future__ import annotations

import io
import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.archive import compress, decompress
from llmzip.errors import FormatError
from llmzip.format import FrameWriter, Header, Method, Sections, read_frames
from llmzip.format.varint import pack_varint
from llmzip.members import Kind, Member, pack_members
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.salvage import Loss, salvage_stream

pytestmark = pytest.mark.usefixtures("tiny_model")

DECODE = DecompressOptions(model="tiny", threads=1)
N_CHUNKS = 50


def _salvage(archive: bytes) -> tuple[bytes, list[Loss]]:
    target = io.BytesIO()
    losses = salvage_stream(io.BytesIO(archive), target, DECODE)
    return target.getvalue(), losses


def _stored(n_chunks: int, sections: Sections | None = None) -> tuple[bytes, bytes]:
    """An archive of stored chunks of different lengths, and its content; random, so that no chunk is like another."""
    rng = random.Random(n_chunks)
    raws = [rng.randbytes(rng.randrange(50, 300)) for _ in range(n_chunks)]
    target = io.BytesIO()
    writer = FrameWriter(target, Header(), sections or Sections())
    for raw in raws:
        writer.write_chunk(Method.STORED, raw, raw)
    writer.finish()
    return target.getvalue(), b"".join(raws)


def _places(archive: bytes) -> list[tuple[int, int, int, int]]:
    """Record, payload and end of each chunk in the archive, and its first byte in the content."""
    found = []
    for frame in read_frames(io.BytesIO(archive)):
        for place, payload in frame.chunks():
            end = place.offset + place.record.size
            found.append((place.offset, end - len(payload), end, place.raw_offset))
    return found


def _without(content: bytes, start: int, stop: int) -> bytes:
    return content[:start] + content[stop:]


@pytest.fixture(scope="module")
def modelled(tiny_home: object, sample_text: bytes) -> tuple[bytes, bytes]:
    """An archive of fifty chunks that a model codes, and its content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_HOME", str(tiny_home))
        patch.setattr("llmzip.methods.compress_zstd", lambda raw: raw)
        patch.setattr("llmzip.methods.compress_general", lambda raw: raw)
        text = sample_text[:10_200]
        archive = compress(text, CompressOptions(model="tiny", window=64, chunk_size=230, threads=1))
    places = _places(archive)
    assert len(places) == N_CHUNKS
    return archive, text


def test_whole_archive_loses_nothing(modelled: tuple[bytes, bytes]) -> None:
    """And is the same as decompressed; so are several in a row."""
    archive, text = modelled
    assert _salvage(archive) == (text, [])
    stored, content = _stored(3)
    assert _salvage(stored + archive + stored) == (content + text + content, [])
    assert _salvage(compress(b"")) == (b"", [])


@pytest.mark.parametrize("chunk", [0, 1, 25, -1])
def test_one_damaged_payload_costs_its_chunk(chunk: int, modelled: tuple[bytes, bytes]) -> None:
    """One of fifty: the others come back, and the range that is missing is its own."""
    archive, text = modelled
    places = _places(archive)
    _, payload, end, start = places[chunk]
    stop = next((place[3] for place in places if place[3] > start), len(text))
    damaged = bytearray(archive)
    damaged[(payload + end) // 2] ^= 0x10
    with pytest.raises(FormatError):
        decompress(bytes(damaged), DECODE)
    content, (loss,) = _salvage(bytes(damaged))
    assert content == _without(text, start, stop)
    assert (loss.start, loss.n_raw) == (start, stop - start)
    assert str(loss).startswith(f"lost: bytes {start} to {stop - 1} of the content, if the damaged chunk is right")


@pytest.mark.parametrize("chunk", [0, 7, 48])
def test_damaged_record_costs_its_chunk(chunk: int, modelled: tuple[bytes, bytes]) -> None:
    """Where it no longer says how long the payload is: those behind it are found from the end."""
    archive, text = modelled
    places = _places(archive)
    record, payload, _, start = places[chunk]
    for place in range(record, payload):
        for bit in (0, 3, 7):
            damaged = bytearray(archive)
            damaged[place] ^= 1 << bit
            content, losses = _salvage(bytes(damaged))
            assert content == _without(text, start, places[chunk + 1][3]), (place, bit)
            assert [loss.start for loss in losses] == [start]


def test_index_says_how_much_is_lost_before_it() -> None:
    """Between two of its entries; and chunks behind the damage keep their places."""
    archive, content = _stored(200)
    places = _places(archive)
    damaged = bytearray(archive)
    damaged[places[70][0]] ^= 0x7C
    damaged[places[150][1]] ^= 1
    found, losses = _salvage(bytes(damaged))
    assert [(loss.start, loss.n_raw) for loss in losses] == [
        (places[i][3], places[i + 1][3] - places[i][3]) for i in (70, 150)
    ]
    assert found == _without(_without(content, places[150][3], places[151][3]), places[70][3], places[71][3])
    assert [loss.sure for loss in losses] == [True, True]
    assert str(losses[0]).startswith(f"lost: bytes {losses[0].start} to ")
    # Behind the last entry there is nothing that would tell.
    damaged[places[195][1]] ^= 1
    assert [loss.sure for loss in _salvage(bytes(damaged))[1]] == [True, True, False]


@given(st.integers(1, 60), st.data())
def test_cut_archive_gives_its_whole_chunks(n_chunks: int, data: st.DataObject) -> None:
    """Whatever is missing at the end."""
    archive, content = _stored(n_chunks)
    cut = data.draw(st.integers(0, len(archive)))
    found, losses = _salvage(archive[:cut])
    whole = [stop for (_, _, end, _), stop in zip(_places(archive), _ends(archive, content), strict=True) if end <= cut]
    assert found == content[: whole[-1] if whole else 0]
    assert bool(losses) == (cut < len(archive))


def _ends(archive: bytes, content: bytes) -> list[int]:
    starts = [place[3] for place in _places(archive)]
    return [*(stop for _, stop in pairwise(starts)), len(content)]


@given(st.integers(2, 150), st.data())
def test_any_bytes_in_the_middle_cost_little(n_chunks: int, data: st.DataObject) -> None:
    """What comes back is the content less what was hit, in order; nothing that was never there."""
    archive, content = _stored(n_chunks)
    places, ends = _places(archive), _ends(archive, content)
    start = data.draw(st.integers(places[0][0], places[-1][2] - 1))
    n = data.draw(st.integers(1, min(40, places[-1][2] - start)))
    noise = data.draw(st.binary(min_size=n, max_size=n))
    damaged = archive[:start] + noise + archive[start + n :]
    hit = [i for i, (record, _, end, _) in enumerate(places) if damaged[record:end] != archive[record:end]]
    found, losses = _salvage(damaged)
    expected = b"".join(
        content[place[3] : stop] for i, (place, stop) in enumerate(zip(places, ends, strict=True)) if i not in hit
    )
    assert found == expected
    assert bool(losses) == bool(hit)


@pytest.mark.parametrize("sizes", [(10, 200), (200, 10), (10, 10), (3, 3, 3)])
def test_damage_in_one_frame_leaves_the_others_alone(sizes: tuple[int, ...]) -> None:
    """The trailer at the archive's end is not taken for that of an earlier frame."""
    parts = [_stored(n) for n in sizes]
    whole, content = b"".join(archive for archive, _ in parts), b"".join(content for _, content in parts)
    start = offset = 0
    for archive, own in parts:
        places, ends = _places(archive), _ends(archive, own)
        for chunk in (0, len(places) // 2, len(places) - 1):
            damaged = bytearray(whole)
            damaged[offset + places[chunk][0]] ^= 0x7C
            found, losses = _salvage(bytes(damaged))
            assert found == _without(content, start + places[chunk][3], start + ends[chunk])
            assert [loss.start for loss in losses] == [start + places[chunk][3]]
        start, offset = start + len(own), offset + len(archive)


def test_damaged_table_costs_no_content() -> None:
    """A bit in the names, or sections that are long together."""
    members = [Member(b"a name that is long enough", Kind.FILE, 0o600, 0, len(_stored(3)[1]))]
    archive, content = _stored(3, Sections(pack_members(members)))
    damaged = bytearray(archive)
    damaged[archive.index(b"long")] ^= 1
    assert _salvage(bytes(damaged)) == (content, [])
    head, rest = archive[:16], archive[16:]
    n_sections = len(Sections(pack_members(members)).pack())
    sections = b"\x84" + pack_varint(1 << 20) + bytes(1 << 20) + rest[: n_sections - 4]
    whole = head + sections + zlib.crc32(sections).to_bytes(4, "little") + rest[n_sections:]
    assert decompress(whole, DECODE) == content
    assert _salvage(whole) == (content, [])


def test_chunks_in_another_order_are_told(modelled: tuple[bytes, bytes]) -> None:
    """Each decodes, and the digest of the whole tells that they are not what was put in."""
    archive, text = modelled
    places = _places(archive)
    chunks = [archive[record:end] for record, _, end, _ in places]
    swapped = archive[:16] + b"".join([chunks[1], chunks[0], *chunks[2:]]) + archive[places[-1][2] :]
    content, (loss,) = _salvage(swapped)
    assert sorted(content) == sorted(text)
    assert (loss.n_raw, "digest" in str(loss)) == (None, True)


def test_damaged_header_costs_its_frame() -> None:
    """The next frame is found by its own; how much was lost nobody knows."""
    first, _ = _stored(3)
    second, content = _stored(5)
    damaged = bytearray(first + second)
    damaged[5] ^= 1
    found, (loss,) = _salvage(bytes(damaged))
    assert found == content
    assert (loss.n_raw, loss.offset) == (None, 0)
    assert "an unknown number of bytes behind the first 0" in str(loss)


def test_archive_within_an_archive_is_no_frame_of_it() -> None:
    """A stored archive's header is not taken for the next frame's, even where the frame around it is damaged."""
    inner, _ = _stored(4)
    target = io.BytesIO()
    writer = FrameWriter(target, Header())
    for raw in (b"before", inner, b"after", b"the end"):
        writer.write_chunk(Method.STORED, raw, raw)
    writer.finish()
    assert _salvage(target.getvalue()) == (b"before" + inner + b"afterthe end", [])
    damaged = bytearray(target.getvalue())
    damaged[damaged.index(b"before")] ^= 1
    assert _salvage(bytes(damaged))[0] == inner + b"afterthe end"


def test_content_of_files_is_salvaged_in_a_row() -> None:
    """Their names are not needed for that."""
    members = [Member(b"a", Kind.FILE, 0o600, 0, 3)]
    archive, content = _stored(3, Sections(pack_members(members)))
    assert _salvage(archive) == (content, [])


@given(st.binary(max_size=200))
def test_noise_gives_nothing(noise: bytes) -> None:
    """But no error either, and what is lost is told."""
    content, losses = _salvage(noise)
    assert content == b""
    assert losses
