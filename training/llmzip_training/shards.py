"""Reads shards of text and decides for good which of their documents are held out.

A shard is one zstd frame of UTF-8 documents joined by NUL bytes, in a file `NAME.txt.zst`. The last documents of
every shard are held out, always the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from llmzip.errors import FileError, FileMissingError

SUFFIX = ".txt.zst"
HELD_OUT_SHARE = 0.02
HELD_OUT_BYTES = 220_000


@dataclass(frozen=True)
class Shard:
    """One shard, split for good into documents to train on and documents to measure on."""

    name: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def shard_paths(folder: Path) -> dict[str, Path]:
    """The shards of `folder` by name, in the order of their names.

    Raises:
        FileMissingError: there is none.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise FileMissingError(f"training data: expected *{SUFFIX}, found none", path=str(folder))
    return {path.name.removesuffix(SUFFIX): path for path in paths}


def read_shards(folder: Path) -> Iterator[Shard]:
    """Read the shards of `folder`, one at a time, in the order of their names.

    Raises:
        FileMissingError: `folder` holds no shard.
        FileError: a shard is damaged.
    """
    for name, path in shard_paths(folder).items():
        yield read_shard(name, path)


def read_shard(name: str, path: Path) -> Shard:
    """Read one shard.

    Raises:
        FileError: it is not exactly one whole zstd frame, its checksum differs, or it is not UTF-8.
    """
    raw = _decompress(path)
    try:
        documents = raw.decode().split("\0")
    except UnicodeDecodeError as error:
        message = f"shard: expected UTF-8, found byte 0x{raw[error.start]:02x} at offset {error.start} of its text"
        raise FileError(message, path=str(path)) from error
    return Shard(name, *split_documents(documents))


def split_documents(documents: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split off the last documents: at most 2 % of them and about 220 KB, at least one of several.

    The split depends on the documents alone, so no run can train on what another measures on.
    """
    most = max(1, int(len(documents) * HELD_OUT_SHARE))
    first = len(documents)
    n_bytes = 0
    while first > 1 and len(documents) - first < most and n_bytes < HELD_OUT_BYTES:
        first -= 1
        n_bytes += len(documents[first].encode())
    return tuple(documents[:first]), tuple(documents[first:])


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decompress(path: Path) -> bytes:
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        raw = frame.decompress(path.read_bytes())
    except zstandard.ZstdError as error:
        raise FileError(f"shard: expected a zstd frame, found a damaged one: {error}", path=str(path)) from error
    if not frame.eof:
        raise FileError(f"shard: expected a whole zstd frame, found its first {len(raw)} bytes of text", path=str(path))
    if frame.unused_data:
        raise FileError(
            f"shard: expected one zstd frame, found {len(frame.unused_data)} bytes after it", path=str(path)
        )
    return raw
