from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from llmzip.errors import ConfigError
from llmzip_training.tokenizer import END_OF_TEXT, load_tokenizer, sample_texts, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small tokenizer that went through its file."""
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(iter(["the page of the title and the text of the page\n"] * 20), 280).save(str(path))
    return load_tokenizer(path)


def test_every_byte_value_is_a_token(tokenizer: Tokenizer) -> None:
    """256 tokens stand for one byte each, so there is no text without tokens."""
    single = [token for token in tokenizer.get_vocab() if len(token) == 1]
    assert len(single) == 256
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_all_byte_values_of_utf8_survive_a_round_trip(tokenizer: Tokenizer) -> None:
    """Every code point below U+0800 and a sample of the others decode to themselves."""
    points = [*range(0x800), *random.Random(0).sample(range(0xE000, 0x110000), 2000)]
    text = "".join(map(chr, points))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_spaces_and_line_ends_survive_a_round_trip(tokenizer: Tokenizer) -> None:
    """No space is added, removed or joined."""
    text = " a  b\r\n\r\n\tc \n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_digits_stand_alone() -> None:
    """However often a number was seen, its digits are separate tokens."""
    tokenizer = train_tokenizer(iter(["2006 "] * 100), 300)
    assert tokenizer.encode("2006").tokens == ["2", "0", "0", "6"]


def test_special_token_spelled_in_text_is_plain_text(tokenizer: Tokenizer) -> None:
    """Text cannot forge a document boundary."""
    ids = tokenizer.encode(f"a{END_OF_TEXT}b").ids
    assert 0 not in ids
    assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"


@pytest.mark.parametrize("vocab_size", [0, 256, 65_537])
def test_vocabulary_out_of_range_is_refused(vocab_size: int) -> None:
    """Fewer tokens than bytes and the boundary cannot spell everything, more do not fit into 16 bits."""
    with pytest.raises(ConfigError, match=f"expected 257 to 65536 tokens, found {vocab_size}"):
        train_tokenizer(iter(["text"]), vocab_size)


def test_smallest_vocabulary_is_bytes_and_the_boundary() -> None:
    """257 tokens, with nothing joined."""
    tokenizer = train_tokenizer(iter(["the the the"]), 257)
    assert tokenizer.get_vocab_size() == 257
    assert len(tokenizer.encode("the").ids) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"no JSON",
        b"[1]",
        b"{}",
        b"7",
        b'{"model": 3}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
        b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"model": "\xff"}',
        b"[" * 100_000,
    ],
    ids=["text", "list", "empty", "number", "model", "merges", "id", "bytes", "depth"],
)
def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    """The file is named, whatever is wrong with it."""
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"t\.json: tokenizer: expected"):
        load_tokenizer(tmp_path / "t.json")


def test_sample_is_the_first_documents_by_share(shards: Path) -> None:
    """Of each shard, a share of the training characters, and a share of that where the shard has one."""
    whole = list(sample_texts(shards, {}, 1.0))
    half = list(sample_texts(shards, {"articles": 0.5}, 1.0))
    articles = [text for text in whole if text.startswith("Article")]
    assert len(articles) == 118
    assert [text for text in half if text.startswith("Article")] == articles[:60]
    assert list(sample_texts(shards, {"articles": 0.0}, 1.0)) == whole[118:]
