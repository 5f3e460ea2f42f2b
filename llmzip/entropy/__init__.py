"""Entropy coding: everything that is coded, is coded here, by constriction's range coder."""

from __future__ import annotations

from llmzip.entropy.parameter_coder import BitCounter, ParameterDecoder, ParameterEncoder, ParameterWriter
from llmzip.entropy.token_coder import TokenDecoder, TokenEncoder, bucket_size

__all__ = [
    "BitCounter",
    "ParameterDecoder",
    "ParameterEncoder",
    "ParameterWriter",
    "TokenDecoder",
    "TokenEncoder",
    "bucket_size",
]
