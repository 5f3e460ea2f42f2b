"""Which conditioner a chunk gets, told from its tokens in microseconds: an estimate of what each would gain.

Only the encoder asks: a decoder reads the choice. A linear function of the mean embedding of the chunk's tokens says
how many bits a token each choice would save; the greatest is taken if that is more than the choice costs. Another says
which weights a chunk brings itself, where it may.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ConditionerInvalidError
from llmzip.exact.matrix import QuantisedMatrix

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
_DTYPE = np.dtype("<f4")
_HEAD_SIZE = 6


@dataclass(frozen=True, eq=False)
class Chooser:
    """Linear estimates from a mean embedding of D numbers, and last a constant.

    Attributes:
        gains: float32 `[D + 1, C - 1]`: bits a token that each choice but none saves.
        analysis: float32 `[D + 1, d]`: weights that a chunk brings, before they are rounded; no columns for none.
    """

    gains: Floats
    analysis: Floats

    def estimate(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bits a token that each choice but none would save in a chunk of that mean embedding, `[C - 1]`."""
        return _linear(mean, self.gains)

    def weights(self, mean: NDArray[np.float64], radius: int) -> tuple[int, ...]:
        """The weights that such a chunk brings itself, each from -radius to radius."""
        weights = np.clip(np.rint(_linear(mean, self.analysis)), -radius, radius).astype(np.int64)
        return tuple(weights.tolist())

    def check(self, width: int, n_choices: int, n_directions: int) -> None:
        """Refuse a chooser for another model or another set.

        Args:
            width: of the model.
            n_choices: of the set.
            n_directions: of weights that chunks may bring; 0 for none.

        Raises:
            ConditionerInvalidError: so it is.
        """
        expected = (width + 1, n_choices - 1), (width + 1, n_directions)
        if (self.gains.shape, self.analysis.shape) != expected:
            found = f"{self.gains.shape} and {self.analysis.shape}"
            raise ConditionerInvalidError(f"chooser: expected {expected[0]} and {expected[1]}, found {found}")

    def pack(self) -> bytes:
        """Rows in 4 bytes, columns of the analysis in 2, then the numbers of both, row by row."""
        n_rows, n_analysis = len(self.gains), int(self.analysis.shape[1])
        head = n_rows.to_bytes(4, "little") + n_analysis.to_bytes(2, "little")
        rows: Floats = np.concatenate([self.gains, self.analysis], axis=1)
        return head + rows.astype(_DTYPE).tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> Chooser:
        """The inverse of `pack`.

        Raises:
            ConditionerInvalidError: the sizes do not fit, or a number is not finite.
        """
        n_rows, n_analysis = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:_HEAD_SIZE], "little")
        if n_rows < 2 or len(data) <= _HEAD_SIZE or (len(data) - _HEAD_SIZE) % (n_rows * _DTYPE.itemsize):
            raise ConditionerInvalidError(f"chooser: expected rows of equal length, found {len(data)} bytes")
        rows = np.frombuffer(data[_HEAD_SIZE:], _DTYPE).reshape(n_rows, -1).astype(np.float32)
        if n_analysis >= rows.shape[1] or not np.isfinite(rows).all():
            raise ConditionerInvalidError("chooser: expected finite numbers, gains and then an analysis, found others")
        n_gains = rows.shape[1] - n_analysis
        return cls(rows[:, :n_gains].copy(), rows[:, n_gains:].copy())


def mean_embedding(tokens: Ids, embedding: QuantisedMatrix) -> NDArray[np.float64]:
    """The mean of the embeddings of tokens int32 `[N]`, N at least 1, float64 `[D]`."""
    ids, counts = np.unique(tokens, return_counts=True)
    shares = counts * embedding.scale[ids].astype(np.float64) / len(tokens)
    mean: NDArray[np.float64] = shares @ embedding.q[ids].astype(np.float64)
    return mean


def _linear(mean: NDArray[np.float64], matrix: Floats) -> NDArray[np.float64]:
    y: NDArray[np.float64] = mean @ matrix[:-1].astype(np.float64) + matrix[-1]
    return y
