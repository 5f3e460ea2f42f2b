from __future__ import annotations

import json

import pytest

from llmzip.errors import ModelInvalidError
from llmzip.models.convert.tokenizer_json import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    byte_level_json,
    sentencepiece_json,
)
from llmzip.tokens import ByteTokenizer, Vocabulary, strip_tokenizer


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _pieces(text: str, data: bytes) -> list[bytes]:
    vocabulary = Vocabulary.from_tokenizer(text, 400, 0)
    ids = ByteTokenizer(strip_tokenizer(text), vocabulary).encode(data)
    return [vocabulary.piece(int(i)) for i in ids]


def _byte_level(split: str) -> str:
    tokens = ["<|endoftext|>", *_alphabet(), "ab", "12", "123", "Ġa", "Ġab", "   "]
    types = [CONTROL] + [NORMAL] * (len(tokens) - 2) + [USER_DEFINED]
    return byte_level_json(tokens, types, [("a", "b"), ("1", "2"), ("12", "3"), ("Ġ", "ab"), ("Ġ", "a")], split)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("gpt-2", [b" ab", b"a", b" ", b"123", b"4", b"ab"]),
        ("llama-bpe", [b" ab", b"a", b" ", b"123", b"4", b"ab"]),
        ("smollm", [b" ab", b"a", b" ", b"1", b"2", b"3", b"4", b"ab"]),
        ("qwen2", [b" ab", b"a", b" ", b"1", b"2", b"3", b"4", b"ab"]),
    ],
)
def test_byte_level_text_is_split_as_the_name_says(split: str, expected: list[bytes]) -> None:
    """Digits go in one word, in threes or alone."""
    assert _pieces(_byte_level(split), b" aba 1234ab") == expected


def test_special_tokens_are_text_and_users_tokens_are_tokens() -> None:
    """Only what the user's tokens spell is taken whole."""
    pieces = _pieces(_byte_level("default"), b"<|endoftext|>   ab")
    assert pieces[-2:] == [b"   ", b"ab"]
    assert b"".join(pieces[:-2]) == b"<|endoftext|>"


def test_sentencepiece_merges_the_best_score_first() -> None:
    """Merges follow from the scores alone; bytes without a piece fall back; runs of spaces are pieces."""
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    words = ["▁", "a", "b", "c", "ab", "bc", "abc", "▁ab", "▁▁"]
    tokens = ["<s>", "<unk>", *byte_tokens, *words]
    types = [CONTROL, UNKNOWN, *[BYTE] * 256, *[NORMAL] * 8, USER_DEFINED]
    scores = [0.0] * 258 + [-20.0, -20.0, -20.0, -20.0, -2.0, -1.0, -3.0, -4.0, 0.0]
    text = sentencepiece_json(tokens, types, scores)
    assert _pieces(text, b"abc abab") == [b"abc", b" ab", b"ab"]
    assert _pieces(text, "bcé  <s>".encode()) == [b"bc", b"\xc3", b"\xa9", b"  ", b"<", b"s", b">"]
    assert json.loads(text)["model"]["merges"][:3] == [["▁", "▁"], ["b", "c"], ["a", "b"]]


def test_an_unknown_splitting_rule_is_refused_by_name() -> None:
    """A rule is not guessed: another split would cost ratio without a word."""
    with pytest.raises(ModelInvalidError, match="found 'tekken'"):
        _byte_level("tekken")
