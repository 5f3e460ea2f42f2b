"""Networks of the learned hyperprior: how likely each value of a steering row is, for one model, in integers.

A network knows for every coordinate of every row a scale and a mean, and how both move with a few whole numbers, the
latents, that a writer chooses for each vector. It is trained (`llmzip train hyperprior`), kept in a file of its own and
found by its id; where files may be is decided by whoever fills `NETWORK_FOLDERS`. SPEC.md, sections 14.4 and 14.7.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import (
    ChecksumError,
    ConditionerInvalidError,
    ConditionerMissingError,
    FormatError,
    LimitError,
    NotAnArchiveError,
)
from llmzip.exact.reference import frequencies
from llmzip.format.limits import MAX_SECTION_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

Integers = NDArray[np.int64]

MAGIC = b"\x89LZH\r\n\x1a\x01"
SUFFIX = ".net"
NETWORK_FILE = "hyperprior.net"
ID_SIZE = 4
MAX_PARTS, MAX_WIDTH, MAX_LATENTS, MAX_LATENT, MAX_SHIFT = 1024, 1 << 16, 16, 31, 15
SCALE_SHIFT = 4

_ARTEFACT_ID_SIZE = 32
# What a file holds beside the body: magic, length, checksum.
_MAX_FILE = MAX_SECTION_LENGTH + 16

# Each gives folders in which network files may be, themselves or one folder deeper.
NETWORK_FOLDERS: list[Callable[[], Iterable[Path]]] = []
_NETWORKS: dict[bytes, HyperpriorNetwork] = {}


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
    """

    artefact_id: str
    mean_shift: int
    step_codes: Integers
    scales: Integers
    means: Integers
    scale_slopes: Integers
    mean_slopes: Integers
    latent_weights: Integers

    def __post_init__(self) -> None:
        """Refuse shapes that differ and numbers out of range."""
        _check_shape(self.n_parts, self.width, self.n_latents, self.latent_radius)
        P, D, k = self.scale_slopes.shape
        shapes = [self.step_codes.shape, self.scales.shape, self.means.shape, self.mean_slopes.shape]
        if shapes != [(P,), (P, D), (P, D), (P, D, k)] or self.latent_weights.shape[:2] != (P, k):
            raise ValueError(f"network: expected arrays for {P} rows of {D} with {k} latents, found {shapes}")
        for name, dtype in _FIELDS:
            array, limits = getattr(self, name), np.iinfo(dtype)
            if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
                raise ValueError(f"network: expected {name} of {limits.min} to {limits.max}")
        if not 0 <= self.mean_shift <= MAX_SHIFT or not self.latent_weights.any(axis=2).all():
            raise FormatError(f"network: expected a shift of 0 to {MAX_SHIFT} and a weight for each latent")

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
        """U."""
        return int(self.latent_weights.shape[2]) // 2

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
        return head + b"".join(getattr(self, name).astype(dtype).tobytes() for name, dtype in _FIELDS)

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

    def pack(self) -> bytes:
        """The bytes of its file.

        Raises:
            LimitError: the body is longer than 1 MiB.
        """
        if len(self.body) > MAX_SECTION_LENGTH:
            raise LimitError(f"network: expected at most {MAX_SECTION_LENGTH} bytes, found {len(self.body)}")
        packed = MAGIC + pack_varint(len(self.body)) + self.body
        return packed + zlib.crc32(packed).to_bytes(4, "little")


# In the order of the body.
_FIELDS: tuple[tuple[str, np.dtype[Any]], ...] = (
    ("step_codes", np.dtype("u1")),
    ("scales", np.dtype("u1")),
    ("means", np.dtype("<i2")),
    ("scale_slopes", np.dtype("i1")),
    ("mean_slopes", np.dtype("i1")),
    ("latent_weights", np.dtype("<u2")),
)


def unpack_network(data: bytes) -> HyperpriorNetwork:
    """The inverse of `HyperpriorNetwork.pack`.

    Raises:
        FormatError: the bytes are no network: of another kind, cut off, damaged, too long, or out of range.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise NotAnArchiveError(f"network: expected {MAGIC.hex(' ')}, found {data[: len(MAGIC)].hex(' ') or 'nothing'}")
    reader = ByteReader(BytesIO(data))
    reader.read(len(MAGIC), "magic")
    length = reader.read_varint("length of network")
    if length > MAX_SECTION_LENGTH:
        raise LimitError.above("length of network", reader.offset, MAX_SECTION_LENGTH, length)
    body = reader.read(length, "network")
    computed = zlib.crc32(data[: reader.offset]).to_bytes(4, "little")
    stored = reader.read(4, "checksum")
    if stored != computed:
        raise ChecksumError.differs("checksum", reader.offset - 4, stored, computed)
    if reader.offset != len(data):
        raise FormatError(f"network: expected {reader.offset} bytes, found {len(data)}", have=len(data))
    return _unpack_body(body)


def read_network(path: Path) -> HyperpriorNetwork:
    """Read a file; one that is too long is refused before it is read.

    Raises:
        FormatError: it holds no network.
        ConditionerMissingError: there is no such file.
    """
    if not path.is_file():
        raise ConditionerMissingError(f"network {path}: expected a file, found none; make one by: llmzip train")
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise LimitError(f"network {path}: expected at most {_MAX_FILE} bytes, found more", need=_MAX_FILE)
    return unpack_network(data)


def register_network(network: HyperpriorNetwork) -> None:
    """Make a network known to readers in this process, under its id."""
    _NETWORKS[network.id] = network


def find_network(network_id: bytes) -> HyperpriorNetwork:
    """The network of an id: a registered one, else from the first file that holds it.

    Raises:
        ConditionerMissingError: there is none; the message says where its file is to be put.
    """
    if network_id not in _NETWORKS:
        for path in _known_files():
            try:
                found = read_network(path)
            except (FormatError, OSError):
                # A damaged file beside the right one is no reason to refuse an archive.
                continue
            if found.id == network_id:
                register_network(found)
                break
        else:
            raise ConditionerMissingError(
                f"conditioners need the hyperprior network {network_id.hex()}, found none of that name; copy its file "
                f"{NETWORK_FILE} into {' or '.join(map(str, _folders())) or 'a folder of models'}"
            )
    return _NETWORKS[network_id]


def _folders() -> list[Path]:
    return [folder for folders in NETWORK_FOLDERS for folder in folders()]


def _known_files() -> Iterator[Path]:
    for folder in _folders():
        yield from sorted(folder.glob(f"*{SUFFIX}"))
        yield from sorted(folder.glob(f"*/*{SUFFIX}"))


def _unpack_body(body: bytes) -> HyperpriorNetwork:
    reader = ByteReader(BytesIO(body))
    artefact_id = reader.read(_ARTEFACT_ID_SIZE, "model id").hex()
    names = ("rows", "width", "latents", "radius of latents", "shift of means")
    P, D, k, U, mean_shift = (reader.read_varint(name) for name in names)
    _check_shape(P, D, k, U)
    shapes = ((P,), (P, D), (P, D), (P, D, k), (P, D, k), (P, k, 2 * U + 1))
    needed = sum(dtype.itemsize * int(np.prod(shape)) for (_, dtype), shape in zip(_FIELDS, shapes, strict=True))
    if needed != len(body) - reader.offset:
        raise FormatError(f"network: expected {needed} bytes of numbers, found {len(body) - reader.offset}")
    arrays = []
    for (name, dtype), shape in zip(_FIELDS, shapes, strict=True):
        raw = reader.read(dtype.itemsize * int(np.prod(shape)), name)
        arrays.append(np.frombuffer(raw, dtype).astype(np.int64).reshape(shape))
    return HyperpriorNetwork(artefact_id, mean_shift, *arrays)


def _check_shape(P: int, D: int, k: int, U: int) -> None:
    if not (1 <= P <= MAX_PARTS and 1 <= D <= MAX_WIDTH and k <= MAX_LATENTS and U <= MAX_LATENT):
        found = f"{P} rows of {D} with {k} latents up to {U}"
        raise LimitError(f"network: expected at most {MAX_PARTS} of {MAX_WIDTH}, {MAX_LATENTS}, {MAX_LATENT}: {found}")
    if (k == 0) != (U == 0):
        raise FormatError(f"network: expected latents and a radius of them, or neither, found {k} and {U}")
