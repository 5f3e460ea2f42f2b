"""Quantised rows and matrices: integers with one float32 scale a row.

`ONE_LIMB` and `TWO_LIMBS` are the greatest magnitudes of quantised activations. One limb fits
int8: queries, keys and values. Two limbs are 14 bits, `128 * high + low`: what matrices take. Where
a processor multiplies int16 they cost nothing more; a device without does two int8 products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError

ONE_LIMB = 127
TWO_LIMBS = 8191
ATTENTION_LIMIT = 8191
NORM_LIMIT = 32767
SMALLEST = np.float32(2.0**-60)


class Rows(NamedTuple):
    """Quantised rows: `q` int16 `[R, D]` of magnitude at most `limit`, `scale` float32 `[R]`."""

    q: NDArray[np.int16]
    scale: NDArray[np.float32]
    limit: int


@dataclass(frozen=True)
class QuantisedMatrix:
    """A linear map: `weight[n, k] = q[n, k] * scale[n]`, with an optional bias.

    Attributes:
        q: int8 `[N, K]`, magnitudes at most 127.
        scale: float32 `[N]`, positive and finite.
        bias: float32 `[N]`, or None.
        limit: what its input rows are quantised to, `ONE_LIMB` or `TWO_LIMBS`.
    """

    q: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    limit: int

    def __post_init__(self) -> None:
        rows = self.q.shape[0]
        if self.q.ndim != 2 or self.q.dtype != np.int8 or self.scale.shape != (rows,):
            raise ModelInvalidError(
                f"matrix: expected int8 [N, K], N scales, found {self.q.dtype} {self.q.shape} and {self.scale.shape}"
            )
        if self.bias is not None and self.bias.shape != (rows,):
            raise ModelInvalidError(f"matrix: expected a bias of shape ({rows},), found {self.bias.shape}")


def quantise_matrix(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise each row to int8 by its greatest magnitude.

    Args:
        weight: float32 `[N, K]`, finite.

    Returns:
        `q` int8 `[N, K]` and `scale` float32 `[N]`; a row below 2**-60 becomes zeros of scale 1.

    Source: ARITHMETIC.md, section 7.
    """
    greatest = np.abs(weight).max(axis=1)
    nonzero = greatest >= SMALLEST
    safe = np.where(nonzero, greatest, np.float32(ONE_LIMB))
    scale = safe / np.float32(ONE_LIMB)
    q = np.rint(weight / scale[:, None])
    return np.where(nonzero[:, None], q, np.float32(0)).astype(np.int8), scale.astype(np.float32)
