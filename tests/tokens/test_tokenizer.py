from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.tokens import ByteTokenizer, Vocabulary, strip_tokenizer

AWKWARD = {
    "empty": b"",
    "one byte": b"\xff",
    "all bytes": bytes(range(256)),
    "special tokens": b"<|endoftext|> and <s> and <unk><0x41>",
    "NULs": b"a\0b\0\0c",
    "CRLF": b"one\r\ntwo\r\n\r\n",
    "BOM": "\ufeffbegin \ufeff".encode(),
    "U+2581": "\u2581a \u2581 \u2581\u2581\u2581 b".encode(),
    "NFC and NFD": "caf\u00e9 cafe\u0301 \ufb01 \u212b".encode(),
    "other scripts": "Zażółć 東京 \U0001f642 \U0010ffff".encode(),
    "spaces": b" lead  two   three" + b" " * 100 + b"\n ",
    "surrogates": b"\xed\xa0\x80 \xed\xbf\xbf",
    "cut character": "é".encode()[:1] + b" then " + "\U0001f642".encode()[:3],
}


@pytest.fixture(scope="session", params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> ByteTokenizer:
    """A tokenizer of each kind."""
    text = request.getfixturevalue(f"{request.param}_json")
    return ByteTokenizer(strip_tokenizer(text), Vocabulary.from_tokenizer(text, 608, 1))


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_bytes_come_back(tokenizer: ByteTokenizer, data: bytes) -> None:
    """Pieces put together are the data, whatever the tokenizer does to it."""
    assert tokenizer.decode(tokenizer.encode(data)) == data


@given(data=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_come_back(tokenizer: ByteTokenizer, data: bytes) -> None:
    """The same for arbitrary bytes and arbitrary text."""
    ids = tokenizer.encode(data)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == data


def test_ordinary_text_takes_far_fewer_tokens_than_bytes(tokenizer: ByteTokenizer) -> None:
    """Text of the training kind is not spelled byte by byte."""
    data = Path(textwrap.__file__).read_bytes()
    ids = tokenizer.encode(data)
    assert tokenizer.decode(ids) == data
    assert len(ids) < 0.5 * len(data)


def test_a_character_that_does_not_survive_leaves_the_rest_of_the_text_alone(tokenizer: ByteTokenizer) -> None:
    """One odd character in a long text costs a few tokens only."""
    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    with_odd = text[:5000] + "\u2581" + text[5000:]
    assert len(tokenizer.encode(with_odd.encode())) < len(tokenizer.encode(text.encode())) + 80


def test_a_batch_gives_what_its_items_give_alone(tokenizer: ByteTokenizer) -> None:
    """Batching is for speed only."""
    batch = list(AWKWARD.values())
    assert [ids.tolist() for ids in tokenizer.encode_batch(batch)] == [tokenizer.encode(d).tolist() for d in batch]


def test_text_begins_without_a_space_that_it_does_not_have(tokenizer: ByteTokenizer) -> None:
    """The prefixed space is gone, so a first word is not paid for byte by byte."""
    assert len(tokenizer.encode(b"self.")) <= 3


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_stripping_is_canonical(kind: str, request: pytest.FixtureRequest) -> None:
    """Stripping again, or stripping the same document in another key order, gives the same text."""
    text = request.getfixturevalue(f"{kind}_json")
    stripped = strip_tokenizer(text)
    reordered = json.dumps(dict(reversed(json.loads(text).items())), indent=2)
    assert strip_tokenizer(stripped) == stripped
    assert strip_tokenizer(reordered) == stripped


def test_metaspace_loses_its_prefix() -> None:
    """SentencePiece's prefixed space is switched off in the pre-tokenizer's newer form too."""
    document = {
        "added_tokens": [],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "split": False},
        "model": {"type": "BPE", "vocab": {"▁": 0, "a": 1}, "merges": [], "byte_fallback": True},
    }
    steps = json.loads(strip_tokenizer(json.dumps(document)))["pre_tokenizer"]["pretokenizers"]
    assert steps == [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}]
