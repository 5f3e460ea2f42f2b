"""Files of hyperprior networks, and the network that an id names. SPEC.md, section 14.7.

A network is kept in a file of its own and found by its id; where files may be is decided by whoever fills
`NETWORK_FOLDERS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path

from llmzip.conditioning.network import HyperpriorNetwork, unpack_body
from llmzip.errors import ChecksumError, ConditionerMissingError, FormatError, LimitError, NotAnArchiveError
from llmzip.format.limits import MAX_SECTION_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

MAGIC = b"\x89LZH\r\n\x1a\x01"
SUFFIX = ".net"
NETWORK_FILE = "hyperprior.net"

# What a file holds beside the body: magic, length, checksum.
_MAX_FILE = MAX_SECTION_LENGTH + 16

# Each gives folders in which network files may be, themselves or one folder deeper.
NETWORK_FOLDERS: list[Callable[[], Iterable[Path]]] = []
_NETWORKS: dict[bytes, HyperpriorNetwork] = {}


def pack_network(network: HyperpriorNetwork) -> bytes:
    """The bytes of a network's file.

    Raises:
        LimitError: the body is longer than 1 MiB.
    """
    if len(network.body) > MAX_SECTION_LENGTH:
        raise LimitError(f"network: expected at most {MAX_SECTION_LENGTH} bytes, found {len(network.body)}")
    packed = MAGIC + pack_varint(len(network.body)) + network.body
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def unpack_network(data: bytes) -> HyperpriorNetwork:
    """The inverse of `pack_network`.

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
    return unpack_body(body)


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
        found = next((network for network in _known_networks() if network.id == network_id), None)
        if found is None:
            raise ConditionerMissingError(
                f"conditioners need the hyperprior network {network_id.hex()}, found none of that name; copy its file "
                f"{NETWORK_FILE} into {' or '.join(map(str, _folders())) or 'a folder of models'}"
            )
        register_network(found)
    return _NETWORKS[network_id]


def find_network_of(artefact_id: str) -> HyperpriorNetwork | None:
    """The first network on this machine that is for a model, or None."""
    found = next((network for network in _known_networks() if network.artefact_id == artefact_id), None)
    if found is not None:
        register_network(found)
    return found


def _known_networks() -> Iterator[HyperpriorNetwork]:
    for path in _known_files():
        try:
            yield read_network(path)
        except (FormatError, ConditionerMissingError, OSError):
            # A damaged file beside the right one, or a folder of such a name, is no reason to refuse an archive.
            continue


def _folders() -> list[Path]:
    return [folder for folders in NETWORK_FOLDERS for folder in folders()]


def _known_files() -> Iterator[Path]:
    for folder in _folders():
        yield from sorted(folder.glob(f"*{SUFFIX}"))
        yield from sorted(folder.glob(f"*/*{SUFFIX}"))
