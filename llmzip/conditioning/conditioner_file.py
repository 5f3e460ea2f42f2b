"""Conditioner files: a set for one model, and what an encoder needs to choose from it. SPEC.md, section 14.

A file is a magic, the id of the model, the set as an archive holds it, notes for people and the chooser's weights,
and a checksum. Its id is that of model and set, so that a new chooser leaves archives readable.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.conditioner_set import ConditionerSet, conditioner_id
from llmzip.errors import ConditionerInvalidError, ConditionerMissingError, FormatError
from llmzip.exact.spec import ModelSpec
from llmzip.format.limits import CONDITIONER_MAGIC, MAX_SECTION_LENGTH
from llmzip.format.reader import ByteReader
from llmzip.format.varint import pack_varint

MAGIC = CONDITIONER_MAGIC
SUFFIX = ".cond"
_ID_SIZE = 32
_MAX_NOTES = 1 << 16


@dataclass(frozen=True)
class ConditionerFile:
    """What a file holds.

    Attributes:
        artefact_id: of the model that it is for, 64 hexadecimal digits.
        body: the set, packed.
        notes: for people: names of the entries, what they were trained on, what they gain.
        chooser: or None.
    """

    artefact_id: str
    body: bytes
    notes: dict[str, Any] = field(default_factory=dict)
    chooser: Chooser | None = None

    @property
    def id(self) -> bytes:
        """32 bytes that name model and set."""
        return conditioner_id(self.artefact_id, self.body)

    @property
    def names(self) -> list[str]:
        """Of the entries, as the notes have them; none where they have no list."""
        names = self.notes.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []

    def pack(self) -> bytes:
        """The bytes of the file."""
        notes = json.dumps(self.notes, sort_keys=True).encode()
        chooser = self.chooser.pack() if self.chooser else b""
        if len(self.body) > MAX_SECTION_LENGTH or len(notes) > _MAX_NOTES:
            found = f"{len(self.body)} and {len(notes)}"
            raise ConditionerInvalidError(f"conditioner: expected up to 1 MiB and 64 KiB of notes, found {found} bytes")
        parts = b"".join(pack_varint(len(part)) + part for part in (self.body, notes, chooser))
        packed = MAGIC + bytes.fromhex(self.artefact_id) + parts
        return packed + zlib.crc32(packed).to_bytes(4, "little")

    def unpack_set(self, spec: ModelSpec) -> ConditionerSet:
        """The set, for the model's shape.

        Raises:
            ConditionerInvalidError: the body is none for such a model.
        """
        try:
            return ConditionerSet.unpack(self.body, spec)
        except FormatError as error:
            raise ConditionerInvalidError(str(error)) from error


def read_conditioner_file(path: Path) -> ConditionerFile:
    """Read a file, all of it checked but the set, which needs the model's shape.

    Raises:
        ConditionerMissingError: there is no such file.
        ConditionerInvalidError: it is none, damaged, or too long.
    """
    if not path.is_file():
        raise ConditionerMissingError(f"conditioner {path}: expected a file, found none; make one by: llmzip train")
    try:
        return unpack_conditioner_file(path.read_bytes())
    except (FormatError, ConditionerInvalidError) as error:
        raise ConditionerInvalidError(f"conditioner {path}: {error}") from error


def unpack_conditioner_file(data: bytes) -> ConditionerFile:
    """The inverse of `ConditionerFile.pack`.

    Raises:
        ConditionerInvalidError: the bytes are none.
        FormatError: they end early, or a length has not its shortest form.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ConditionerInvalidError(f"expected {MAGIC.hex(' ')}, found {data[: len(MAGIC)].hex(' ') or 'no bytes'}")
    reader = ByteReader(BytesIO(data), 0)
    reader.read(len(MAGIC), "magic")
    artefact_id = reader.read(_ID_SIZE, "model id").hex()
    body, notes, chooser = (_read_part(reader, name) for name in ("conditioners", "notes", "chooser"))
    checksum = zlib.crc32(data[: reader.offset]).to_bytes(4, "little")
    if reader.read(4, "checksum") != checksum:
        raise ConditionerInvalidError("expected the checksum of its bytes, found another; it is damaged")
    if reader.offset != len(data):
        raise ConditionerInvalidError(f"expected {reader.offset} bytes, found {len(data)}")
    return ConditionerFile(artefact_id, body, _read_notes(notes), Chooser.unpack(chooser) if chooser else None)


def _read_part(reader: ByteReader, name: str) -> bytes:
    length = reader.read_varint(f"length of {name}")
    if length > MAX_SECTION_LENGTH:
        raise ConditionerInvalidError(f"{name}: expected at most {MAX_SECTION_LENGTH} bytes, found {length}")
    return reader.read(length, name)


def _read_notes(notes: bytes) -> dict[str, Any]:
    try:
        found = json.loads(notes)
    except (ValueError, RecursionError) as error:
        raise ConditionerInvalidError(f"notes: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise ConditionerInvalidError(f"notes: expected a JSON object, found {type(found).__name__}")
    return found
