from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip_training.streams import TokenStream, encode_stream, file_stream, shard_streams

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def _stream(sizes: list[int]) -> TokenStream:
    tokens = np.concatenate([[*range(1, size + 1), 0] for size in sizes]).astype(np.int32)
    return TokenStream(tokens, 0, int(tokens.sum()))


@given(lengths, st.integers(1, 50))
def test_windows_hold_the_whole_stream(sizes: list[int], context: int) -> None:
    """In order, and BOS fills the last one."""
    stream = _stream(sizes)
    flat = stream.windows(context).ravel()
    assert np.array_equal(flat[: len(stream.tokens)], stream.tokens)
    assert not flat[len(stream.tokens) :].any()
    assert stream.n_tokens == sum(sizes)


@given(lengths, st.integers(1, 50))
def test_pieces_belong_to_one_document(sizes: list[int], context: int) -> None:
    """They begin where the document or the piece before ends, and only short ends are left out."""
    pieces = _stream(sizes).pieces(context)
    texts = [piece[piece != 0] for piece in pieces]
    assert all(np.array_equal(np.diff(text), np.ones(len(text) - 1)) for text in texts)
    assert all(8 * len(text) >= context and (text[0] - 1) % context == 0 for text in texts)
    assert sum(sizes) - sum(map(len, texts)) <= len(sizes) * context / 8


def test_some_windows_lie_at_equal_distances() -> None:
    """0 and too many give all."""
    stream = _stream([100])
    assert stream.windows(10, 4)[:, 0].tolist() == [1, 21, 51, 81]
    assert len(stream.windows(10, 99)) == len(stream.windows(10)) == 11


def test_documents_of_any_bytes_are_tokenised(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """BOS behind each; what the tokens stand for are the documents."""
    documents = [b"def main():\n", b"\xff\x00not UTF-8"]
    for i, document in enumerate(documents):
        (tmp_path / f"{i}").write_bytes(document)
    stream = file_stream([tmp_path / "0", tmp_path / "1"], tiny_artefact)
    ends = np.flatnonzero(stream.tokens == 0)
    parts = [stream.tokens[: ends[0]], stream.tokens[ends[0] + 1 : ends[1]]]
    assert [tiny_artefact.vocabulary.decode(part) for part in parts] == documents
    assert (stream.n_bytes, len(ends)) == (sum(map(len, documents)), 2)


def test_shards_give_equal_parts_and_their_held_out_text(shards: Path, tiny_artefact: Artefact) -> None:
    """No more training text than was asked for, but for a document of each."""
    train, held_out = shard_streams(shards, tiny_artefact, 4000)
    assert 4000 <= train.n_bytes < 4600
    assert held_out.n_bytes == shard_streams(shards, tiny_artefact, 10**9)[1].n_bytes
    assert train.digest != held_out.digest


def test_empty_text_is_refused(tiny_artefact: Artefact) -> None:
    """There is nothing to learn from."""
    with pytest.raises(ConfigError, match="expected at least one byte"):
        encode_stream([b"", b""], tiny_artefact)
