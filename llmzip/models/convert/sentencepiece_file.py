"""`tokenizer.model`: SentencePiece's own file, for checkpoints that are published without a tokenizer.json.

It is a protocol buffer; of it only the pieces (text, score, type) and the kind of model are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from llmzip.errors import ModelInvalidError
from llmzip.models.convert.tokenizer_json import NORMAL, sentencepiece_json

# Field numbers of SentencePiece's ModelProto, its pieces and its TrainerSpec.
_PIECES, _TRAINER = 1, 2
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BPE = 3, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def sentencepiece_file_json(content: bytes) -> str:
    """The `tokenizers` file that stands for a BPE `tokenizer.model`."""
    tokens, types, scores, kind = [], [], [], 1
    try:
        for number, value in _fields(content):
            if number == _PIECES:
                piece = dict(_fields(_bytes(value)))
                tokens.append(_bytes(piece[_TEXT]).decode())
                scores.append(float(struct.unpack("<f", _bytes(piece.get(_SCORE, bytes(4))))[0]))
                types.append(int(piece.get(_TYPE, NORMAL)))
            elif number == _TRAINER:
                kind = int(dict(_fields(_bytes(value))).get(_MODEL_TYPE, kind))
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise ModelInvalidError(f"tokenizer.model: expected a SentencePiece model, found {error!r}") from error
    if kind != _BPE or not tokens:
        raise ModelInvalidError(f"tokenizer.model: expected BPE (type {_BPE}) with pieces, found type {kind}")
    return sentencepiece_json(tokens, types, scores)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one protocol buffer message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(message)}")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError(f"the number {value} where bytes are due")
    return value
