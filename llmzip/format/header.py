"""The 16 bytes that begin a frame: what is needed to decode it. SPEC.md, section 3."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmzip.errors import ChecksumError, FormatError, NotAnArchiveError, TruncatedError, VersionError
from llmzip.format.limits import (
    ARITHMETIC_VERSION,
    ARTEFACT_ID_SIZE,
    CANARY_SIZE,
    CODER_VERSION,
    FORMAT_VERSION,
    HEADER_SIZE,
    MAGIC,
    MAX_OVERLAP_SIXTEENTHS,
    MAX_WINDOW,
    MIN_WINDOW,
)

_SINGLE = 1
_SECTIONS = 2
_CODEBOOK = 4


@dataclass(frozen=True)
class Header:
    """What decodes a frame.

    The defaults name no model; `window` is 0 then, and the frame holds no model chunk.

    Attributes:
        window: tokens the model sees at once, a power of two from 32 to 2048, or 0 without a model.
        overlap: tokens repeated from the text before, a multiple of `window / 16`, at most 12 of them.
        artefact_id: first 5 bytes of the artefact's id, or of that of the artefact and its codebook, not all zero; all
            zero without a model.
        canary: 2 bytes of a hash of what the engine computes for a fixed input.
        single: exactly one chunk and no trailer.
        sections: sections stand between the header and the chunks.
        codebook: model chunks choose from the model's own codebook of conditioners.
        conditioner: the body of the frame's conditioner section, which is none of the 16 bytes; empty without one.
        arithmetic_version: rules by which the model is evaluated.
        coder_version: rules of the entropy coder.
        version: format version.
    """

    window: int = 0
    overlap: int = 0
    artefact_id: bytes = bytes(ARTEFACT_ID_SIZE)
    canary: bytes = bytes(CANARY_SIZE)
    single: bool = False
    sections: bool = False
    codebook: bool = False
    conditioner: bytes = b""
    arithmetic_version: int = ARITHMETIC_VERSION
    coder_version: int = CODER_VERSION
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse what no header can hold."""
        if len(self.artefact_id) != ARTEFACT_ID_SIZE or len(self.canary) != CANARY_SIZE:
            raise ValueError(
                f"header: expected an artefact id of {ARTEFACT_ID_SIZE} bytes and a canary of {CANARY_SIZE}, "
                f"found {len(self.artefact_id)} and {len(self.canary)}"
            )
        if self.uses_model:
            _check_window(self.window, self.overlap)
        elif self.window or self.overlap or any(self.canary):
            raise ValueError("header: expected no window, overlap or canary without a model")
        if (self.codebook or self.conditioner) and (not self.uses_model or (self.codebook and self.conditioner)):
            raise ValueError("header: expected a codebook or a conditioner with a model, and not both")

    @property
    def uses_model(self) -> bool:
        """Tell whether chunks may be coded by a model."""
        return any(self.artefact_id)

    def without_model(self) -> Header:
        """Give the header of a frame in which no chunk came out coded by the model."""
        nothing = Header()
        return replace(nothing, single=self.single, sections=self.sections)

    def pack(self) -> bytes:
        """Write the 16 bytes."""
        body = MAGIC + bytes(
            [
                self.version,
                self.single * _SINGLE | self.sections * _SECTIONS | self.codebook * _CODEBOOK,
                self.coder_version << 4 | self.arithmetic_version,
                _window_code(self.window, self.overlap),
                *self.artefact_id,
                *self.canary,
            ]
        )
        return body + bytes([crc8(body)])

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Header:
        """Read the 16 bytes.

        Args:
            data: up to 16 bytes; fewer if the archive ends before.
            offset: position of `data` in the archive.

        Raises:
            NotAnArchiveError: `data` does not begin with the magic.
            TruncatedError: the magic, and then fewer than 16 bytes.
            ChecksumError: the header's checksum differs.
            VersionError: a version or flag that this reader does not know.
            FormatError: a combination that no writer makes.
        """
        _check_frame(data, offset)
        _check_versions(data, offset)
        window, overlap = _window_of(data[7], offset)
        artefact_id, canary = data[8:13], data[13:15]
        if not any(artefact_id):
            if data[7] or any(canary) or data[5] & _CODEBOOK:
                raise FormatError(
                    f"expected zero without an artefact id, found {data[7]:02x}, {canary.hex()} and {data[5]:08b}",
                    field="header window code, canary and codebook",
                    offset=offset + 7,
                )
            window = overlap = 0
        return cls(
            window=window,
            overlap=overlap,
            artefact_id=artefact_id,
            canary=canary,
            single=bool(data[5] & _SINGLE),
            sections=bool(data[5] & _SECTIONS),
            codebook=bool(data[5] & _CODEBOOK),
        )

    def with_conditioner(self, body: bytes | None, offset: int) -> Header:
        """The header of a frame that has such a section, or none.

        Args:
            body: of the section.
            offset: of the header, for the error.

        Raises:
            FormatError: it cannot have one.
        """
        if body is None:
            return self
        if not self.uses_model or self.codebook or not body:
            raise FormatError(
                "expected a body, a model and no codebook beside a conditioner", field="conditioner", offset=offset
            )
        return replace(self, conditioner=body)


def crc8(data: bytes) -> int:
    """Give the CRC-8 of `data`: polynomial 0x07, first value 0, no reflection, no final exclusive or.

    >>> hex(crc8(b"123456789"))
    '0xf4'
    """
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 * (crc >> 7)) & 0xFF
    return crc


def _check_window(window: int, overlap: int) -> None:
    if not MIN_WINDOW <= window <= MAX_WINDOW or window & (window - 1):
        raise ValueError(f"window: expected a power of two from {MIN_WINDOW} to {MAX_WINDOW}, found {window}")
    if overlap % (window // 16) or not 0 <= overlap <= window // 16 * MAX_OVERLAP_SIXTEENTHS:
        raise ValueError(
            f"overlap: expected a multiple of {window // 16} (window / 16) "
            f"up to {window // 16 * MAX_OVERLAP_SIXTEENTHS}, found {overlap}"
        )


def _window_code(window: int, overlap: int) -> int:
    if window == 0:
        return 0
    return (window // MIN_WINDOW).bit_length() - 1 << 4 | overlap * 16 // window


def _window_of(code: int, offset: int) -> tuple[int, int]:
    window = MIN_WINDOW << (code >> 4)
    if window > MAX_WINDOW or code & 15 > MAX_OVERLAP_SIXTEENTHS:
        raise FormatError(
            f"expected a window up to {MAX_WINDOW} and an overlap up to {MAX_OVERLAP_SIXTEENTHS}/16, "
            f"found {window} and {code & 15}/16",
            field="header window code",
            offset=offset + 7,
        )
    return window, window * (code & 15) // 16


def _check_frame(data: bytes, offset: int) -> None:
    """Refuse what is not a header of any format version."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        found = data[: len(MAGIC)].hex(" ")
        raise NotAnArchiveError(
            f"expected {MAGIC.hex(' ')}, found {found}",
            field="magic",
            offset=offset,
            need=MAGIC,
            have=data[: len(MAGIC)],
        )
    if len(data) < HEADER_SIZE:
        raise TruncatedError.short("header", offset, HEADER_SIZE, len(data))
    computed = crc8(data[: HEADER_SIZE - 1])
    if computed != data[HEADER_SIZE - 1]:
        stored = data[HEADER_SIZE - 1 :]
        raise ChecksumError.differs("header checksum", offset + HEADER_SIZE - 1, stored, bytes([computed]))


def _check_versions(data: bytes, offset: int) -> None:
    """Refuse what this reader does not know, by name."""
    facts = (
        ("format version", 4, data[4], FORMAT_VERSION),
        ("arithmetic version", 6, data[6] & 15, ARITHMETIC_VERSION),
        ("entropy coder version", 6, data[6] >> 4, CODER_VERSION),
    )
    for field, at, found, known in facts:
        if found != known:
            raise VersionError(
                f"this reader knows {known}, found {found}", field=field, offset=offset + at, need=known, have=found
            )
    unknown = data[5] & ~(_SINGLE | _SECTIONS | _CODEBOOK)
    if unknown:
        raise VersionError(
            f"expected bits 3 to 7 zero, found {data[5]:08b}", field="flags", offset=offset + 5, need=0, have=unknown
        )
