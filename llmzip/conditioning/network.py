"""Networks of the learned hyperprior: how likely each value of a steering row is, for one model, in integers.

A network knows for every coordinate of every row a scale and a mean, and how both move with a few whole numbers, the
latents. A writer chooses them for each vector, or they come from text that is already decoded, or both. It is trained
(`llmzip train hyperprior`). SPEC.md, sections 14.4 and 14.7.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ConditionerInvalidError, FormatError, LimitError
from llmzip.exact.reference import frequencies
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

Integers = NDArray[np.int64]

ID_SIZE = 4
MAX_PARTS, MAX_WIDTH, MAX_LATENTS, MAX_LATENT, MAX_SHIFT = 1024, 1 << 16, 16, 31, 15
MAX_VOCABULARY = 1 << 20
SCALE_SHIFT = 4
MAX_CODE = 255
_MEANS = np.iinfo(np.int16)

_ARTEFACT_ID_SIZE = 32


def _no_text() -> Integers:
    return np.zeros((0, 0), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class HyperpriorNetwork:
    """Scales and means of P rows of D coordinates each, under k latents from -U to U.

    Attributes:
        artefact_id: of the model, 64 hexadecimal digits.
        mean_shift: by how many bits a mean's sum is shifted, 0 to 15.
        step_codes: of the step that each row was trained with, int64 `[P]`, 0 to 255.
        scales: codes of the deviations at latents of 0, int64 `[P, D]`, 0 to 255.
        means: at latents of 0, in units of 2**-4 steps, int64 `[P, D]`, 16 bits.
        scale_slopes: by latents, in units of 2**-4 codes, int64 `[P, D, k]`, 8 bits.
        mean_slopes: by latents, in units of 2**-(4 + mean_shift) steps, int64 `[P, D, k]`, 8 bits.
        latent_weights: how probable each latent is, int64 `[P, k, 2U + 1]`, 16 bits without sign, no row all zeros.
        text_shift: by how many bits the mean of what tokens add to latents is shifted, 0 to 15.
        text_weights: what each token of a text adds, int64 `[V, k]`, 8 bits; no rows where text says nothing.
    """

    artefact_id: str
    mean_shift: int
    step_codes: Integers
    scales: Integers
    means: Integers
    scale_slopes: Integers
    mean_slopes: Integers
    latent_weights: Integers
    text_shift: int = 0
    text_weights: Integers = field(default_factory=_no_text)

    def __post_init__(self) -> None:
        """Refuse shapes that differ and numbers out of range."""
        _check_shape(self.n_parts, self.width, self.n_latents, self.latent_radius, len(self.text_weights))
        P, D, k = self.scale_slopes.shape
        shapes = [self.step_codes.shape, self.scales.shape, self.means.shape, self.mean_slopes.shape]
        if shapes != [(P,), (P, D), (P, D), (P, D, k)] or self.latent_weights.shape[:2] != (P, k):
            raise ValueError(f"network: expected arrays for {P} rows of {D} with {k} latents, found {shapes}")
        if self.reads_text and self.text_weights.shape[1] != k:
            raise ValueError(f"network: expected {k} weights a token, found {self.text_weights.shape[1]}")
        for name, dtype in (*_FIELDS, _TEXT_FIELD):
            array, limits = getattr(self, name), np.iinfo(dtype)
            if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
                raise ValueError(f"network: expected {name} of {limits.min} to {limits.max}")
        shifts = self.mean_shift, self.text_shift
        if not 0 <= min(shifts) <= max(shifts) <= MAX_SHIFT or not self.latent_weights.any(axis=2).all():
            raise FormatError(f"network: expected shifts of 0 to {MAX_SHIFT} and a weight for each latent")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HyperpriorNetwork) and self.body == other.body

    def __hash__(self) -> int:
        return hash(self.body)

    @property
    def n_parts(self) -> int:
        """P."""
        return int(self.scale_slopes.shape[0])

    @property
    def width(self) -> int:
        """D."""
        return int(self.scale_slopes.shape[1])

    @property
    def n_latents(self) -> int:
        """The number k of latents of a row; 0: all vectors have the same distribution."""
        return int(self.scale_slopes.shape[2])

    @property
    def latent_radius(self) -> int:
        """U; 0 where latents come from text alone."""
        return int(self.latent_weights.shape[2]) // 2

    @property
    def reads_text(self) -> bool:
        """Whether text that is already decoded moves the latents."""
        return len(self.text_weights) > 0

    def check(self, artefact_id: str, n_parts: int, width: int) -> None:
        """Refuse a network for another model.

        Args:
            artefact_id: of the model.
            n_parts: rows that steer it.
            width: of each.

        Raises:
            ConditionerInvalidError: so it is.
        """
        if (self.n_parts, self.width) != (n_parts, width):
            found = f"{self.n_parts} of {self.width}"
            raise ConditionerInvalidError(f"network: expected one for {n_parts} rows of {width}, found {found}")
        if self.artefact_id != artefact_id:
            found = self.artefact_id[:10]
            raise ConditionerInvalidError(f"network: expected that of model {artefact_id[:10]}, found {found}'s")

    @functools.cached_property
    def body(self) -> bytes:
        """All numbers, packed in the one way there is."""
        numbers = (self.n_parts, self.width, self.n_latents, self.latent_radius, self.mean_shift)
        head = bytes.fromhex(self.artefact_id) + b"".join(map(pack_varint, numbers))
        body = head + b"".join(getattr(self, name).astype(dtype).tobytes() for name, dtype in _FIELDS)
        if not self.reads_text:
            return body
        text = pack_varint(len(self.text_weights)) + pack_varint(self.text_shift)
        return body + text + self.text_weights.astype(_TEXT_FIELD[1]).tobytes()

    @functools.cached_property
    def id(self) -> bytes:
        """4 bytes that name it: the first of SHA-256 of the body."""
        return hashlib.sha256(self.body).digest()[:ID_SIZE]

    def scale_codes(self, part: int, latents: Integers) -> Integers:
        """Codes of the deviations of a row's coordinates, int64 `[D]`, under latents `[k]`."""
        moved: Integers = self.scales[part] + (self.scale_slopes[part] @ latents >> SCALE_SHIFT)
        return np.clip(moved, 0, 255)

    def row_means(self, part: int, latents: Integers, radius: int) -> Integers:
        """Means of a row's coordinates in units of 2**-4 steps, int64 `[D]`, moved to those of -radius to radius."""
        moved: Integers = self.means[part] + (self.mean_slopes[part] @ latents >> self.mean_shift)
        return np.clip(moved, -16 * radius, 16 * radius)

    def latent_frequencies(self, part: int) -> Integers:
        """How probable each latent of a row is, int64 `[k, 2U + 1]`, each at least 1, rows of the sum 2**24."""
        weights = self.latent_weights[part]
        return frequencies(weights) + 1 if len(weights) else np.zeros((0, weights.shape[1]), dtype=np.int64)

    def given(self, tokens: NDArray[np.int32]) -> HyperpriorNetwork:
        """The network that a text makes of this one, itself if it reads none.

        Args:
            tokens: already decoded, at least one, each below V.
        """
        if not self.reads_text:
            return self
        sums = self.text_weights[tokens].sum(axis=0)
        latents = np.clip(sums // (len(tokens) << self.text_shift), -MAX_LATENT, MAX_LATENT)
        scales = np.clip(self.scales + (self.scale_slopes @ latents >> SCALE_SHIFT), 0, MAX_CODE)
        means = np.clip(self.means + (self.mean_slopes @ latents >> self.mean_shift), _MEANS.min, _MEANS.max)
        moved = (self.artefact_id, self.mean_shift, self.step_codes, scales, means)
        if self.latent_radius:
            return HyperpriorNetwork(*moved, self.scale_slopes, self.mean_slopes, self.latent_weights)
        none = self.scale_slopes[:, :, :0]
        return HyperpriorNetwork(*moved, none, none, self.latent_weights[:, :0])


# In the order of the body.
_FIELDS: tuple[tuple[str, np.dtype[Any]], ...] = (
    ("step_codes", np.dtype("u1")),
    ("scales", np.dtype("u1")),
    ("means", np.dtype("<i2")),
    ("scale_slopes", np.dtype("i1")),
    ("mean_slopes", np.dtype("i1")),
    ("latent_weights", np.dtype("<u2")),
)
# Behind them, where there is one.
_TEXT_FIELD: tuple[str, np.dtype[Any]] = ("text_weights", np.dtype("i1"))


def unpack_body(body: bytes) -> HyperpriorNetwork:
    """The inverse of `HyperpriorNetwork.body`.

    Raises:
        FormatError: no writer makes such a body.
    """
    reader = ByteReader(BytesIO(body))
    artefact_id = reader.read(_ARTEFACT_ID_SIZE, "model id").hex()
    names = ("rows", "width", "latents", "radius of latents", "shift of means")
    P, D, k, U, mean_shift = (reader.read_varint(name) for name in names)
    _check_shape(P, D, k, U)
    shapes = ((P,), (P, D), (P, D), (P, D, k), (P, D, k), (P, k, 2 * U + 1))
    needed = sum(dtype.itemsize * int(np.prod(shape)) for (_, dtype), shape in zip(_FIELDS, shapes, strict=True))
    if needed > len(body) - reader.offset:
        raise FormatError(f"network: expected {needed} bytes of numbers, found {len(body) - reader.offset}")
    arrays = [_read_array(reader, *one) for one in zip(_FIELDS, shapes, strict=True)]
    steps, scales, means, scale_slopes, mean_slopes, weights = arrays
    text = _read_text(reader, k, len(body))
    return HyperpriorNetwork(artefact_id, mean_shift, steps, scales, means, scale_slopes, mean_slopes, weights, *text)


def _read_text(reader: ByteReader, k: int, end: int) -> tuple[int, Integers]:
    """What stands behind the other numbers, if anything does."""
    if reader.offset == end:
        return 0, _no_text()
    vocab_size, shift = reader.read_varint("vocabulary"), reader.read_varint("shift of text")
    if not 1 <= vocab_size <= MAX_VOCABULARY or vocab_size * k != end - reader.offset:
        found = f"{end - reader.offset} bytes for {vocab_size} tokens"
        raise FormatError(f"network: expected {k} bytes a token, or nothing behind the latents, found {found}")
    return shift, _read_array(reader, _TEXT_FIELD, (vocab_size, k))


def _read_array(reader: ByteReader, field: tuple[str, np.dtype[Any]], shape: tuple[int, ...]) -> Integers:
    name, dtype = field
    raw = reader.read(dtype.itemsize * int(np.prod(shape)), name)
    return np.frombuffer(raw, dtype).astype(np.int64).reshape(shape)


def _check_shape(P: int, D: int, k: int, U: int, vocab_size: int | None = None) -> None:
    """Refuse sizes out of range, and latents that nothing gives, once it is known whether text does."""
    if not (1 <= P <= MAX_PARTS and 1 <= D <= MAX_WIDTH and k <= MAX_LATENTS and U <= MAX_LATENT):
        found = f"{P} rows of {D} with {k} latents up to {U}"
        raise LimitError(f"network: expected at most {MAX_PARTS} of {MAX_WIDTH}, {MAX_LATENTS}, {MAX_LATENT}: {found}")
    if (k == 0 and (U or vocab_size)) or (k and not U and vocab_size == 0):
        raise FormatError(f"network: expected latents and a radius or a text of them, or neither, found {k} and {U}")
