from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from llmzip.errors import ModelInvalidError
from llmzip.tokens import ByteTokenizer, Vocabulary, strip_tokenizer


def _byte_level(pieces: dict[str, int], added: list[tuple[int, str, bool]]) -> str:
    return json.dumps(
        {
            "added_tokens": [{"id": i, "content": content, "special": special} for i, content, special in added],
            "pre_tokenizer": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": pieces, "merges": []},
        }
    )


def test_byte_level_tokens_stand_for_the_bytes_that_their_alphabet_spells(byte_level_json: str) -> None:
    """Each ordinary piece is what the alphabet says; the special token is empty; a user's token is its text."""
    vocabulary = Vocabulary.from_tokenizer(byte_level_json, 520, 0)
    names = json.loads(byte_level_json)["model"]["vocab"]
    assert vocabulary.piece(names["Ġthe"]) == b" the"
    assert vocabulary.piece(names["Ċ"]) == b"\n"
    assert vocabulary.piece(0) == b""
    assert vocabulary.piece(512) == b" " * 8
    assert [vocabulary.piece(int(i)) for i in vocabulary.byte_ids] == [bytes([value]) for value in range(256)]


def test_sentencepiece_tokens_stand_for_text_with_spaces_and_for_bytes(sentencepiece_json: str) -> None:
    """U+2581 is a space, <0xXX> a byte, the unknown token and the start are empty."""
    vocabulary = Vocabulary.from_tokenizer(sentencepiece_json, 608, 1)
    names = json.loads(sentencepiece_json)["model"]["vocab"]
    assert vocabulary.piece(names["▁the"]) == b" the"
    assert vocabulary.piece(names["<0xFF>"]) == b"\xff"
    assert vocabulary.piece(600) == b"   "
    assert (vocabulary.piece(0), vocabulary.piece(1)) == (b"", b"")


def test_ids_beyond_the_tokenizer_are_empty(byte_level_json: str) -> None:
    """Padding rows of the embedding stand for nothing."""
    vocabulary = Vocabulary.from_tokenizer(byte_level_json, 520, 0)
    assert len(vocabulary) == 520
    assert vocabulary.codable.tolist() == [i != 0 and i < 513 for i in range(520)]


def test_missing_bytes_take_special_tokens_first_then_empty_ids_then_young_pieces() -> None:
    """The assignment is fixed: bytes ascending, and never the token that begins windows."""
    printable = {chr(value): value - 0x21 + 2 for value in range(0x21, 0x7F)}
    pieces = printable | {"ab": 96, "cd": 97, "ef": 98}
    text = _byte_level(pieces, [(0, "<a>", True), (1, "<bos>", True)])
    vocabulary = Vocabulary.from_tokenizer(text, 99 + 159, 1)
    assert vocabulary.byte_ids[0x41] == pieces["A"]
    assert vocabulary.byte_ids[0] == 0
    assert vocabulary.byte_ids[1] == 99
    assert vocabulary.byte_ids[0xFE] == 98
    assert vocabulary.byte_ids[0xFF] == 97
    assert vocabulary.piece(96) == b"ab"
    assert vocabulary.piece(1) == b""


def test_too_few_tokens_for_all_bytes_are_refused() -> None:
    """A vocabulary that cannot spell every byte is no base for an archiver."""
    text = _byte_level({"a": 0, "b": 1}, [(2, "<bos>", True)])
    with pytest.raises(ModelInvalidError, match="expected 254 ids to spare for bytes, found 0"):
        Vocabulary.from_tokenizer(text, 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "WordPiece", "vocab": {}}}, "expected a model of type BPE, found WordPiece"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "expected byte-level or SentencePiece"),
        ({"model": []}, "expected a model with a vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": 300}}}, "expected ids below 300, found 300"),
    ],
)
def test_other_tokenizers_are_refused_with_what_was_expected(change: dict[str, Any], message: str) -> None:
    """A tokenizer of another kind is named, not guessed at."""
    document = json.loads(_byte_level({"a": 0}, [])) | change
    with pytest.raises(ModelInvalidError, match=message):
        Vocabulary.from_tokenizer(json.dumps(document), 300, 0)


def test_text_that_is_no_json_is_refused() -> None:
    """A damaged file is a refusal, not a bare ValueError."""
    with pytest.raises(ModelInvalidError, match="expected JSON"):
        Vocabulary.from_tokenizer("{", 300, 0)


def test_damaged_tables_are_refused(byte_level_json: str) -> None:
    """Arrays that contradict each other do not make a vocabulary."""
    good = Vocabulary.from_tokenizer(byte_level_json, 520, 0)
    with pytest.raises(ModelInvalidError, match="found uint8, int64, int32"):
        Vocabulary(good.blob, good.offsets.astype(np.int64), good.byte_ids)
    with pytest.raises(ModelInvalidError, match="expected offsets from 0"):
        Vocabulary(good.blob[:-1], good.offsets, good.byte_ids)
    with pytest.raises(ModelInvalidError, match="ascending"):
        Vocabulary(good.blob, np.concatenate([good.offsets[:1], good.offsets[-1:], good.offsets[1:]]), good.byte_ids)
    with pytest.raises(ModelInvalidError, match="each byte id"):
        Vocabulary(good.blob, good.offsets, np.roll(good.byte_ids, 1))


def test_decoding_refuses_ids_without_bytes_and_out_of_range(byte_level_json: str) -> None:
    """Decoded ids come from an archive, so they are checked."""
    vocabulary = Vocabulary.from_tokenizer(byte_level_json, 520, 0)
    assert vocabulary.decode(np.array([], dtype=np.int32)) == b""
    for i in (0, 519):
        with pytest.raises(ValueError, match=f"found {i} without"):
            vocabulary.decode(np.array([5, i], dtype=np.int32))
    for i in (-1, 520):
        with pytest.raises(ValueError, match="expected 0 to 519"):
            vocabulary.decode(np.array([5, i], dtype=np.int32))


def test_the_library_never_proposes_a_token_given_to_a_byte(byte_level_json: str) -> None:
    """A piece that lost its id to a missing byte is spelled with others, also where merges led to it."""
    document = json.loads(byte_level_json)
    vocab = document["model"]["vocab"]
    for value in range(0xF0, 0x100):  # these bytes are their own characters in the alphabet
        vocab[f"unused{value}"] = vocab.pop(chr(value))
    document["model"]["merges"] = [merge for merge in document["model"]["merges"] if "ð" not in "".join(merge)]
    text = json.dumps(document)
    vocabulary = Vocabulary.from_tokenizer(text, 513, 0)
    taken = [name for name, i in vocab.items() if i in vocabulary.byte_ids and len(name) > 1]
    tokenizer = ByteTokenizer(strip_tokenizer(text), vocabulary)
    words = [name.replace("Ġ", " ").encode() for name in taken if name.isascii() or "Ġ" in name]
    assert len(taken) >= 14
    assert words
    for data in [*words, bytes(range(0xF0, 0x100))]:
        assert tokenizer.decode(tokenizer.encode(data)) == data
