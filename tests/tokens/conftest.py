"""Small tokenizers of both kinds, trained on the standard library's sources."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

SPECIAL = "<|endoftext|>"


def _sources() -> str:
    return Path(textwrap.__file__).read_text(encoding="utf-8") + "café – naïve\n"


@pytest.fixture(scope="session")
def byte_level_json() -> str:
    """A byte-level BPE of 512 tokens whose id 0 is special, with normalisation that loses text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_sources()], trainer)
    tokenizer.add_tokens(["        "])
    return str(tokenizer.to_str())


@pytest.fixture(scope="session")
def sentencepiece_json() -> str:
    """A SentencePiece-like BPE with byte fallback, a prefixed space and a user's token of two spaces."""
    from tokenizers import Tokenizer, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", *byte_tokens], show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator(_sources().splitlines(), trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < 2]
    document["added_tokens"].append(document["added_tokens"][0] | {"id": 600, "content": "▁▁▁", "special": False})
    return json.dumps(document)
