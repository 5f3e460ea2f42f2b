"""Tokens to bytes and back under the engine's integer frequencies.

A token is coded as its bucket, then as the member of the bucket: two choices among about sqrt(V)
instead of one among V, which costs the coder a hundredth of the time and the archive nothing.

constriction is handed frequencies that sum to exactly 2**24 - n, as float32 (all integers below
2**24 are exact there). Its 24-bit categorical model then gives every symbol its frequency plus one
without any rounding, so that the floats are only a way to pass integers.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.entropy.parameter_coder import ParameterDecoder, ParameterEncoder
from llmzip.errors import FormatError

Frequencies = NDArray[np.float32]


def bucket_size(vocab_size: int) -> int:
    """Tokens in a bucket, and buckets at most: the least n with n * n >= V. SPEC.md, section 9.

    >>> bucket_size(49152)
    222
    """
    return math.isqrt(vocab_size - 1) + 1


class TokenEncoder(ParameterEncoder):
    """Encodes the tokens of one chunk, in order; what else a payload holds comes before them, by the same coder."""

    def __init__(self, n: int) -> None:
        """`n`: as `bucket_size` gives it."""
        super().__init__()
        self._n = n

    def encode(self, tokens: NDArray[np.int32], buckets: Frequencies, members: Frequencies) -> None:
        """Add tokens.

        Args:
            tokens: ids, shape `[R]`.
            buckets: frequencies of the buckets for each token, float32 `[R, n]`, sums `2**24 - n`.
            members: frequencies of the members of each token's own bucket, likewise.
        """
        symbols = np.stack([tokens // self._n, tokens % self._n], axis=1).reshape(-1).astype(np.int32)
        frequencies = np.stack([buckets, members], axis=1).reshape(-1, self._n)
        self._coder.encode(symbols, _categorical(), frequencies)


class TokenDecoder(ParameterDecoder):
    """Decodes the tokens of one chunk: for each, the bucket first, then the member."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % 4:
            raise FormatError(f"model payload: expected a multiple of 4 bytes, found {len(payload)}")
        super().__init__(payload)
        self._model = _stream().model.Categorical

    def decode(self, frequencies: Frequencies) -> int:
        """The next symbol, 0 to n - 1, under `frequencies`, float32 `[n]`.

        Raises:
            FormatError: the payload cannot have been written under these frequencies.
        """
        try:
            # A lazy model for each symbol takes 1.5 us, a row of parameters 2.2.
            symbol: int = self._coder.decode(self._model(frequencies, perfect=False, lazy=True))
        except AssertionError as error:
            raise FormatError("model payload: expected words of the range coder, found none that fit") from error
        return symbol


def _stream() -> Any:
    import constriction

    return constriction.stream


@functools.cache
def _categorical() -> Any:
    return _stream().model.Categorical(perfect=False)
