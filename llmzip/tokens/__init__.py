"""Bytes to token ids and back to the same bytes, whatever the bytes are."""

from __future__ import annotations

from llmzip.tokens.tokenizer import ByteTokenizer, strip_tokenizer
from llmzip.tokens.vocabulary import Vocabulary

__all__ = ["ByteTokenizer", "Vocabulary", "strip_tokenizer"]
