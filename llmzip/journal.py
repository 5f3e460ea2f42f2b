"""What a model made of chunks, kept while an archive is written, so that a run that was killed need not do it again.

A journal belongs to one codec: a name of it, then records that are only ever added. A record is the lengths of a chunk
and of its payload, a digest of the chunk, the payload, and a checksum; one that is not whole ends the journal.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import TYPE_CHECKING, BinaryIO

from llmzip.errors import FormatError
from llmzip.format import Header
from llmzip.format.limits import ARTEFACT_ID_SIZE
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

if TYPE_CHECKING:
    from llmzip.codec import Codec

_MAGIC = b"llmzip journal 1\n"
_DIGEST_SIZE = 16
_CHECK_SIZE = 4


class Journal:
    """Payloads by their chunks.

    Args:
        file: opened for reading and writing; what is in it of the same codec is taken over, all else removed.
        codec: what codes the chunks.

    Attributes:
        n_found: chunks that were found so far.
    """

    def __init__(self, file: BinaryIO, codec: Codec) -> None:
        self._file = file
        self._places: dict[bytes, tuple[int, int]] = {}
        self.n_found = 0
        name = _MAGIC + _name_of(codec)
        file.seek(0)
        end = self._read_records(len(name)) if file.read(len(name)) == name else 0
        file.truncate(end)
        file.seek(end)
        if not end:
            file.write(name)
            file.flush()

    def find(self, raw: bytes) -> bytes | None:
        """The payload of a chunk, if it is here."""
        place = self._places.get(_digest(raw))
        if place is None:
            return None
        self.n_found += 1
        offset, length = place
        self._file.seek(offset)
        payload = self._file.read(length)
        self._file.seek(0, os.SEEK_END)
        return payload

    def keep(self, raw: bytes, payload: bytes) -> None:
        """Add a chunk and its payload; they are with the system when this returns."""
        digest = _digest(raw)
        head = pack_varint(len(raw)) + pack_varint(len(payload)) + digest
        self._places[digest] = self._file.tell() + len(head), len(payload)
        self._file.write(head + payload + _check(head + payload))
        self._file.flush()

    def _read_records(self, start: int) -> int:
        """Find all whole records from `start` on; where the last of them ends."""
        reader = ByteReader(self._file, start)
        end = start
        try:
            while True:
                end = self._read_record(reader)
        except FormatError:
            return end

    def _read_record(self, reader: ByteReader) -> int:
        """Find one record; raises `FormatError` where there is none that is whole."""
        raw_length, length = reader.read_varint("raw length"), reader.read_varint("payload length")
        digest = reader.read(_DIGEST_SIZE, "digest")
        offset = reader.offset
        payload = reader.read(length, "payload")
        body = pack_varint(raw_length) + pack_varint(length) + digest + payload
        if reader.read(_CHECK_SIZE, "check") != _check(body):
            raise FormatError("expected the checksum of a record, found another", field="journal")
        self._places[digest] = offset, length
        return reader.offset


def _name_of(codec: Codec) -> bytes:
    """What decides a payload beside its chunk."""
    windowing, identity = codec.windowing, bytes.fromhex(codec.artefact.id)
    header = Header(windowing.window, windowing.overlap, identity[:ARTEFACT_ID_SIZE], codec.canary())
    return identity + header.pack() + codec.conditioning.id + str(codec.conditioning.policy).encode() + b"\n"


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_DIGEST_SIZE]


def _check(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECK_SIZE, "little")
