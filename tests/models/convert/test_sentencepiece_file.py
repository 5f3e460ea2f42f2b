from __future__ import annotations

import contextlib
import json
import struct

import pytest

from llmzip.errors import ModelInvalidError
from llmzip.models.convert.sentencepiece_file import sentencepiece_file_json
from llmzip.models.convert.tokenizer_json import BYTE, CONTROL, NORMAL, UNKNOWN, sentencepiece_json


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def _piece(text: str, score: float, kind: int) -> bytes:
    body = _field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score)
    return _field(1, body + (bytes([3 << 3, kind]) if kind != NORMAL else b""))


PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("<0x41>", 0.0, BYTE),
    ("▁a", -1.5, NORMAL),
    ("▁", -3.0, NORMAL),
    ("a", -4.0, NORMAL),
]
BPE_TRAINER = _field(2, bytes([3 << 3, 2, 4 << 3, 0x80, 0x02]))
MODEL = b"".join(_piece(*piece) for piece in PIECES) + BPE_TRAINER


def test_pieces_scores_and_types_are_read() -> None:
    """The tokenizer is that of the same tables in a GGUF file."""
    tokens, scores, types = zip(*PIECES, strict=True)
    assert sentencepiece_file_json(MODEL) == sentencepiece_json(tokens, types, scores)
    assert json.loads(sentencepiece_file_json(MODEL))["model"]["merges"] == [["▁", "a"]]


def test_other_kinds_of_model_are_refused() -> None:
    """Unigram models (SentencePiece's default) need another tokenizer."""
    with pytest.raises(ModelInvalidError, match=r"expected BPE .* found type 1"):
        sentencepiece_file_json(MODEL[: -len(BPE_TRAINER)])


def test_every_cut_is_refused_as_invalid_or_read_without_its_end() -> None:
    """A damaged file never raises anything but the refusal."""
    for end in range(len(MODEL)):
        with pytest.raises(ModelInvalidError, match=r"tokenizer\.model: expected"):
            sentencepiece_file_json(MODEL[:end])
    for at in range(len(MODEL)):
        flipped = MODEL[:at] + bytes([MODEL[at] ^ 0xFF]) + MODEL[at + 1 :]
        with contextlib.suppress(ModelInvalidError):
            sentencepiece_file_json(flipped)
