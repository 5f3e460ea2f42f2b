"""Which bytes each token stands for: a table, so that decoding asks no tokenizer library.

The table is made once, when a model is converted, and travels in its artefact. Two kinds of tokenizer
are read: byte-level BPE, whose tokens are spelled in an alphabet of 256 visible characters, and
SentencePiece BPE, which spells a space U+2581 and lone bytes `<0xXX>`. Special tokens stand for no
bytes and are never coded, except where they are given to byte values that the vocabulary lacks
(SmolLM2's has no token for 21 of the 256).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The bytes of every token.

    Attributes:
        blob: the pieces one after another, dtype uint8.
        offsets: piece `i` is `blob[offsets[i]:offsets[i + 1]]`; shape `[V + 1]`, dtype int32.
        byte_ids: a token for each single byte, shape `[256]`, dtype int32.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int32]
    byte_ids: NDArray[np.int32]

    def __post_init__(self) -> None:
        offsets, byte_ids = self.offsets, self.byte_ids
        found = [array.dtype.name for array in (self.blob, offsets, byte_ids)]
        if found != ["uint8", "int32", "int32"]:
            raise ModelInvalidError(f"vocabulary: expected arrays of uint8, int32 and int32, found {', '.join(found)}")
        if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(self.blob):
            raise ModelInvalidError(f"vocabulary: expected offsets from 0 to {len(self.blob)}")
        if np.any(np.diff(offsets) < 0):
            raise ModelInvalidError("vocabulary: expected offsets in ascending order")
        if byte_ids.shape != (256,) or byte_ids.min() < 0 or byte_ids.max() >= len(self):
            raise ModelInvalidError(f"vocabulary: expected 256 byte ids below {len(self)}")
        if any(self.piece(int(i)) != bytes([value]) for value, i in enumerate(byte_ids)):
            raise ModelInvalidError("vocabulary: expected each byte id to stand for its byte")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def piece(self, i: int) -> bytes:
        """The bytes of token `i`; empty if it is not codable."""
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def decode(self, ids: NDArray[np.int32]) -> bytes:
        """The bytes of `ids` in a row; an id out of range or without bytes is a `ValueError`."""
        if ids.size == 0:
            return b""
        if ids.min() < 0 or ids.max() >= len(self):
            raise ValueError(f"token ids: expected 0 to {len(self) - 1}, found {ids.min()} to {ids.max()}")
        starts, lengths = self.offsets[ids], self.offsets[ids + 1] - self.offsets[ids]
        if not lengths.all():
            raise ValueError(f"token ids: expected tokens with bytes, found {ids[lengths == 0][0]} without")
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        return self.blob[np.repeat(starts - before, lengths) + np.arange(lengths.sum())].tobytes()

    @property
    def codable(self) -> NDArray[np.bool_]:
        """Which tokens stand for at least one byte, shape `[V]`."""
        return np.diff(self.offsets) > 0

    @classmethod
    def from_pieces(cls, pieces: Sequence[bytes], byte_ids: Sequence[int]) -> Vocabulary:
        """The table of `pieces`, one a token."""
        offsets = np.zeros(len(pieces) + 1, dtype=np.int32)
        offsets[1:] = np.cumsum([len(piece) for piece in pieces])
        blob = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        return cls(blob, offsets, np.array(byte_ids, dtype=np.int32))

    @classmethod
    def from_tokenizer(cls, tokenizer_json: str, vocab_size: int, bos_id: int) -> Vocabulary:
        """The table of a `tokenizers` file.

        Byte values without a token of their own, in ascending order, get tokens that can be spared: first the
        special ones in ascending order, then ids without a piece, then the youngest pieces of several bytes
        (BPE learns its rarest last). `ByteTokenizer` keeps the library from using those.

        Args:
            tokenizer_json: the file's text as published; `strip_tokenizer`'s result lacks the special tokens.
            vocab_size: rows of the model's embedding, above all of the tokenizer's ids; the rest is empty.
            bos_id: the token that begins windows; it stays empty.

        Raises:
            ModelInvalidError: another kind of tokenizer, or fewer tokens to spare than bytes missing.
        """
        pieces, special = _pieces(parse_tokenizer(tokenizer_json), vocab_size)
        byte_ids = _byte_ids(pieces)
        missing = [value for value in range(256) if value not in byte_ids]
        spare = _spare_ids(pieces, special, bos_id)
        if len(spare) < len(missing):
            raise ModelInvalidError(f"tokenizer: expected {len(missing)} ids to spare for bytes, found {len(spare)}")
        for value, i in zip(missing, spare, strict=False):
            pieces[i] = bytes([value])
            byte_ids[value] = i
        return cls.from_pieces(pieces, [byte_ids[value] for value in range(256)])


def parse_tokenizer(tokenizer_json: str) -> dict[str, Any]:
    """The JSON object of a `tokenizers` file that has a model with a vocabulary."""
    try:
        document = json.loads(tokenizer_json)
    except ValueError as error:
        raise ModelInvalidError(f"tokenizer: expected JSON, found {error}") from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ModelInvalidError("tokenizer: expected a model with a vocabulary of names and ids")
    return dict(document)


def _pieces(document: dict[str, Any], vocab_size: int) -> tuple[list[bytes], list[int]]:
    """The bytes of each id, and the ids of special tokens in ascending order."""
    model = document["model"]
    sentencepiece = is_sentencepiece(document)
    spell = _sentencepiece_bytes if sentencepiece else _byte_level_bytes
    pieces = [b""] * vocab_size
    for token, i in model["vocab"].items():
        pieces[_checked(i, vocab_size)] = spell(token)
    special = {model["vocab"][model["unk_token"]]} if model.get("unk_token") in model["vocab"] else set()
    for token in document.get("added_tokens") or []:
        i = _checked(token["id"], vocab_size)
        if token["special"]:
            special.add(i)
        elif not (sentencepiece and pieces[i]):
            pieces[i] = _sentencepiece_bytes(token["content"]) if sentencepiece else token["content"].encode()
    for i in special:
        pieces[i] = b""
    return pieces, sorted(special)


def _checked(i: int, vocab_size: int) -> int:
    if not 0 <= i < vocab_size:
        raise ModelInvalidError(f"tokenizer: expected ids below {vocab_size}, found {i}")
    return i


def is_sentencepiece(document: dict[str, Any]) -> bool:
    """Whether a parsed tokenizer spells spaces U+2581; False: it is byte-level. Others are refused."""
    if document["model"].get("type") != "BPE":
        raise ModelInvalidError(f"tokenizer: expected a model of type BPE, found {document['model'].get('type')}")
    if {"ByteLevel"} & (part_types(document, "pre_tokenizer") | part_types(document, "decoder")):
        return False
    if document["model"].get("byte_fallback") or "Metaspace" in part_types(document, "pre_tokenizer"):
        return True
    raise ModelInvalidError("tokenizer: expected byte-level or SentencePiece BPE, found neither's marks")


def part_types(document: dict[str, Any], part: str) -> set[str]:
    """The types of the steps in a tokenizer's `part`."""
    return {step["type"] for step in steps(document.get(part))}


def steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A tokenizer's part as a flat list of steps."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = next(value for key, value in part.items() if key != "type")
    return [step for item in inner for step in steps(item)]


def _spare_ids(pieces: Sequence[bytes], special: Sequence[int], bos_id: int) -> list[int]:
    """Ids that may be given another meaning, the most useless first."""
    empty = [i for i, piece in enumerate(pieces) if not piece and i not in special]
    youngest = [i for i in reversed(range(len(pieces))) if len(pieces[i]) > 1]
    return [i for i in (*special, *empty, *youngest) if i != bos_id]


def _byte_ids(pieces: Sequence[bytes]) -> dict[int, int]:
    """The first token that stands for each single byte."""
    byte_ids: dict[int, int] = {}
    for i, piece in enumerate(pieces):
        if len(piece) == 1:
            byte_ids.setdefault(piece[0], i)
    return byte_ids


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level BPE: visible ones for themselves, then U+0100 and on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    return {chr(value): value for value in visible} | {chr(256 + n): value for n, value in enumerate(hidden)}


_ALPHABET = _byte_alphabet()


def _byte_level_bytes(token: str) -> bytes:
    """The bytes that `token` spells; none if it holds a character outside the alphabet."""
    if not all(character in _ALPHABET for character in token):
        return b""
    return bytes(_ALPHABET[character] for character in token)


def _sentencepiece_bytes(token: str) -> bytes:
    match = BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else token.replace("\u2581", " ").encode()
