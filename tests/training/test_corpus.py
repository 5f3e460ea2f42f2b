from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard

from llmzip_training.corpus import END_OF_DOCUMENT, load_corpus, prepare_corpus, read_shards, split_documents
from llmzip_training.tokenizer import train_tokenizer


def test_split_holds_out_the_last_two_percent() -> None:
    """Two documents of a hundred small ones are held out, the last two, and nothing is lost."""
    documents = [f"document {i}" for i in range(100)]
    train, held_out = split_documents(documents)
    assert list(train + held_out) == documents
    assert held_out == ("document 98", "document 99")


def test_split_stops_at_its_limit_in_bytes() -> None:
    """Long documents are held out until their bytes reach the limit, then no more."""
    _, held_out = split_documents(["x" * 150_000] * 1000)
    assert len(held_out) == 2


def test_split_leaves_a_single_document_to_training() -> None:
    """There is always something to train on."""
    assert split_documents(["only"]) == (("only",), ())


def test_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """A wrong data folder is named in the error."""
    with pytest.raises(FileNotFoundError, match="expected"):
        list(read_shards(tmp_path))


def test_token_files_hold_every_document_once(tmp_path: Path) -> None:
    """Decoded at its boundaries, the stream is the training documents in another order; held-out text is apart."""
    documents = [f"Document number {i}: <|endoftext|> is plain text, näïve or not.\n" for i in range(60)]
    shard = zstandard.ZstdCompressor().compress("\0".join(documents).encode())
    (tmp_path / "made.txt.zst").write_bytes(shard)
    tokenizer = train_tokenizer(iter(documents), 300)
    tokenizer.encode_special_tokens = True
    prepare_corpus(tmp_path, tokenizer, tmp_path / "out", seed=1)
    corpus = load_corpus(tmp_path / "out")
    ends = np.flatnonzero(corpus.tokens == END_OF_DOCUMENT) + 1
    pieces = [tokenizer.decode(piece[:-1].tolist()) for piece in np.split(corpus.tokens, ends)]
    assert pieces.pop() == ""
    assert sorted(pieces) == sorted(documents[:59])
    assert pieces != documents[:59]
    (held_out,) = corpus.held_out
    assert tokenizer.decode(held_out.tokens.tolist()) == documents[59]
    assert held_out.n_bytes == len(documents[59].encode())
