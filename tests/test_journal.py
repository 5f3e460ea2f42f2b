from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.archive import compress, decompress
from llmzip.codec import Codec
from llmzip.encoding import StreamCompressor
from llmzip.journal import Journal
from llmzip.loading import load_codec
from llmzip.models.artefact import Artefact
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.windows import Windowing

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=400, threads=1)


@pytest.fixture(scope="module")
def codec(tiny_artefact: Artefact) -> Codec:
    """The model `tiny`."""
    return Codec(tiny_artefact, Windowing(64, 4))


def _compress(text: bytes, journal: io.BytesIO) -> bytes:
    target = io.BytesIO()
    with StreamCompressor(target, OPTIONS, journal=journal) as compressor:
        compressor.write(text)
        compressor.finish()
    return target.getvalue()


def test_payloads_come_back_in_another_process(codec: Codec) -> None:
    """By their chunks, in any order; a chunk that was never kept is not found."""
    file = io.BytesIO()
    journal = Journal(file, codec)
    for i in range(5):
        journal.keep(b"chunk %d" % i, b"payload" * i)
    again = Journal(io.BytesIO(file.getvalue()), codec)
    assert [again.find(b"chunk %d" % i) for i in (4, 0, 3)] == [b"payload" * 4, b"", b"payload" * 3]
    assert again.find(b"chunk 5") is None
    again.keep(b"chunk 5", b"more")
    assert again.find(b"chunk 5") == b"more"
    assert again.n_found == 4


@given(st.data())
def test_a_journal_cut_anywhere_gives_what_is_whole(codec: Codec, data: st.DataObject) -> None:
    """And goes on behind it."""
    file = io.BytesIO()
    journal, ends = Journal(file, codec), [len(file.getvalue())]
    for i in range(4):
        journal.keep(b"chunk %d" % i, b"payload %d" % i)
        ends.append(len(file.getvalue()))
    cut = data.draw(st.integers(0, ends[-1]))
    rest = io.BytesIO(file.getvalue()[:cut])
    again = Journal(rest, codec)
    found = [again.find(b"chunk %d" % i) for i in range(4)]
    assert found == [b"payload %d" % i if cut >= ends[i + 1] else None for i in range(4)]
    again.keep(b"new", b"one")
    assert Journal(rest, codec).find(b"new") == b"one"


@given(st.data())
def test_damage_ends_the_journal_before_it(codec: Codec, data: st.DataObject) -> None:
    """No payload comes back changed, nor for another chunk."""
    file = io.BytesIO()
    journal = Journal(file, codec)
    for i in range(4):
        journal.keep(b"chunk %d" % i, b"payload %d" % i)
    damaged = bytearray(file.getvalue())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    again = Journal(io.BytesIO(bytes(damaged)), codec)
    for i in range(4):
        assert again.find(b"chunk %d" % i) in (None, b"payload %d" % i)


def test_journal_of_another_codec_is_emptied(codec: Codec, tiny_artefact: Artefact) -> None:
    """Other windows make other payloads."""
    file = io.BytesIO()
    Journal(file, codec).keep(b"chunk", b"payload")
    assert Journal(file, Codec(tiny_artefact, Windowing(64, 8))).find(b"chunk") is None
    assert Journal(file, codec).find(b"chunk") is None


@pytest.mark.usefixtures("tiny_model")
def test_journal_changes_no_archive(sample_text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none, a new one, a whole one and each part of it, the archive is the same; a whole one needs no model."""
    text = sample_text[:2000] + bytes(range(256)) * 4 + sample_text[2000:3000]
    expected = compress(text, OPTIONS)
    journal = io.BytesIO()
    assert _compress(text, journal) == expected
    whole = journal.getvalue()
    for length in range(0, len(whole), 97):
        assert _compress(text, io.BytesIO(whole[:length])) == expected
    load_codec(OPTIONS).canary()
    monkeypatch.setattr(Codec, "_code_windows", None)
    assert _compress(text, io.BytesIO(whole)) == expected
    assert decompress(expected, DecompressOptions(model="tiny")) == text


@pytest.mark.usefixtures("tiny_model")
def test_work_is_kept_chunk_by_chunk(sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed loses the chunk at hand, not the group that the archive is written in."""
    done: list[bytes] = []
    keep = Journal.keep

    def _keep(journal: Journal, raw: bytes, payload: bytes) -> None:
        keep(journal, raw, payload)
        done.append(raw)
        if len(done) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "keep", _keep)
    with (tmp_path / "journal").open("w+b") as file:
        compressor = StreamCompressor(io.BytesIO(), OPTIONS, journal=file)
        compressor.write(sample_text[:4000])
        with pytest.raises(KeyboardInterrupt):
            compressor.finish()
    with (tmp_path / "journal").open("r+b") as file:
        journal = Journal(file, load_codec(OPTIONS))
        assert [journal.find(raw) is not None for raw in done] == [True] * 3
