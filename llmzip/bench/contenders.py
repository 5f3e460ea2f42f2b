"""What is compared: llmzip with a model, compressors of Python packages, programs, and command lines of the user.

A contender is named by a reference, which is text, so that another process can make the same contender of it. All of
them work from file to file.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from llmzip.bench.commands import Command, known_programs, parse_command, run_command
from llmzip.bench.libraries import LIBRARIES, Choice
from llmzip.errors import ConfigError

BUNDLED = "bundled"
# In the order of the table. What takes hours or minutes for a megabyte is there for those who name it.
DEFAULT_OPPONENTS = (*LIBRARIES, "zpaq", "7z", "bzip3", "lrzip")
ALL_OPPONENTS = (*DEFAULT_OPPONENTS, "cmix")
# The first use of a model loads it and compiles its operations.
_WARM_UP = b"Of all the things that were said that evening, only one was remembered in the morning. " * 3


class Kind(StrEnum):
    """What a reference names."""

    LIBRARY = "library"
    PROGRAM = "program"
    COMMAND = "command"
    MODEL = "model"


@dataclass(frozen=True)
class Reference:
    """A contender, as one process names it to another.

    Attributes:
        kind: where to look.
        text: its name there, or its command line.
        threads: of llmzip; opponents use one.
        device: what computes llmzip's model: `auto`, `cpu` or `cuda`.
        asked: whether the user named it; then it is a failure that it cannot run.
    """

    kind: Kind
    text: str
    threads: int = 1
    device: str = "auto"
    asked: bool = False


class Contender(Protocol):
    """A way to compress files.

    Attributes:
        variants: names of its settings; the one with the smallest result counts.
        model_bytes: of the model that decoding needs, 0 without one.
        in_process: whether the work is done in the process that calls; else a program that it starts does it.
    """

    variants: tuple[str, ...]
    model_bytes: int
    in_process: bool

    def warm_up(self) -> None:
        """Do what only the first run in a process has to."""

    def encode(self, source: Path, target: Path, variant: int) -> None:
        """Compress a file."""

    def decode(self, source: Path, target: Path, variant: int, n_raw: int) -> None:
        """Restore it; `n_raw` is the size it had."""

    def settings(self, packed: Path, n_raw: int) -> dict[str, Any]:
        """What is to be known of a result beside its size."""


def against(text: str) -> Reference:
    """The opponent that `--against` names: one that is known, or a command line.

    Raises:
        ConfigError: neither.
    """
    if text in LIBRARIES:
        return Reference(Kind.LIBRARY, text, asked=True)
    if text in ALL_OPPONENTS:
        return Reference(Kind.PROGRAM, text, asked=True)
    if not any(mark in text for mark in " ;{"):
        known = ", ".join(ALL_OPPONENTS)
        raise ConfigError(f"against: expected default, none, one of {known}, or 'COMPRESS ; DECOMPRESS', found {text}")
    parse_command(text)
    return Reference(Kind.COMMAND, text, asked=True)


def default_opponents() -> list[Reference]:
    """The opponents that a run has which names none."""
    kinds = {name: Kind.LIBRARY if name in LIBRARIES else Kind.PROGRAM for name in DEFAULT_OPPONENTS}
    return [Reference(kind, name) for name, kind in kinds.items()]


def contender_of(reference: Reference) -> Contender:
    """The contender that a reference names.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    match reference.kind:
        case Kind.LIBRARY:
            return LibraryContender(LIBRARIES[reference.text])
        case Kind.PROGRAM:
            return CommandContender(known_programs()[reference.text])
        case Kind.COMMAND:
            return CommandContender(parse_command(reference.text))
        case Kind.MODEL:
            return ModelContender(reference.text, reference.threads, reference.device)


def missing(reference: Reference) -> str | None:
    """Why a contender cannot run here; None where it can."""
    if reference.kind is Kind.LIBRARY:
        package = LIBRARIES[reference.text].package
        if package and importlib.util.find_spec(package) is None:
            return f"expected the package {package}, found none: pip install {package}"
    elif reference.kind is not Kind.MODEL:
        contender = contender_of(reference)
        assert isinstance(contender, CommandContender)
        if program := contender.command.missing:
            return f"expected the program {program} on PATH, found none"
    return None


class LibraryContender:
    """A library, which has the whole input and the whole output in memory."""

    model_bytes = 0
    in_process = True

    def __init__(self, choice: Choice) -> None:
        self._libraries = choice.variants
        self._package = choice.package
        self.variants: tuple[str, ...] = tuple(library.name for library in choice.variants)

    def warm_up(self) -> None:
        """Load the package."""
        if self._package:
            importlib.import_module(self._package)

    def encode(self, source: Path, target: Path, variant: int) -> None:
        """Compress a file."""
        target.write_bytes(self._libraries[variant].compress(source.read_bytes()))

    def decode(self, source: Path, target: Path, variant: int, n_raw: int) -> None:
        """Restore it."""
        target.write_bytes(self._libraries[variant].decompress(source.read_bytes(), n_raw))

    def settings(self, packed: Path, n_raw: int) -> dict[str, Any]:
        """One core's work."""
        del packed, n_raw
        return {"device": "cpu", "threads": 1}


class CommandContender:
    """A program; its start is part of its time."""

    model_bytes = 0
    in_process = False

    def __init__(self, command: Command) -> None:
        self.command = command
        self.variants: tuple[str, ...] = (command.name,)

    def warm_up(self) -> None:
        """Nothing: every run is a first one."""

    def encode(self, source: Path, target: Path, variant: int) -> None:
        """Compress a file."""
        del variant
        run_command(self.command.compress, source, target)

    def decode(self, source: Path, target: Path, variant: int, n_raw: int) -> None:
        """Restore it."""
        del variant, n_raw
        run_command(self.command.decompress, source, target)

    def settings(self, packed: Path, n_raw: int) -> dict[str, Any]:
        """What the command line says, nobody else knows."""
        del packed, n_raw
        return {}


class ModelContender:
    """llmzip with a model by name, id or path; `bundled` is the one in the package."""

    in_process = True

    def __init__(self, name: str, threads: int, device: str) -> None:
        from llmzip.models.store import find_bundled, find_model
        from llmzip.options import CompressOptions, DecompressOptions

        model = find_bundled() if name == BUNDLED else find_model(name)
        reference = None if name == BUNDLED else name
        self._encoding = CompressOptions(model=reference, threads=threads, device=device)
        self._decoding = DecompressOptions(model=reference, threads=threads, device=device)
        self.variants: tuple[str, ...] = (f"llmzip, {model.name}",)
        self.model_bytes = model.size_bytes

    def warm_up(self) -> None:
        """Load the model and compile its operations, by a small text there and back."""
        from llmzip.archive import compress, decompress

        decompress(compress(_WARM_UP, self._encoding), self._decoding)

    def encode(self, source: Path, target: Path, variant: int) -> None:
        """Compress a file as the command does, piece by piece."""
        from llmzip.archive import compress_stream

        del variant
        with source.open("rb") as raw, target.open("wb") as packed:
            compress_stream(raw, packed, self._encoding)

    def decode(self, source: Path, target: Path, variant: int, n_raw: int) -> None:
        """Restore it."""
        from llmzip.archive import decompress_stream

        del variant, n_raw
        with source.open("rb") as packed, target.open("wb") as raw:
            decompress_stream(packed, raw, self._decoding)

    def settings(self, packed: Path, n_raw: int) -> dict[str, Any]:
        """Window, overlap and chunk size, with what they were computed by."""
        from llmzip.bench.machine import device_name
        from llmzip.defaults import default_chunk_size
        from llmzip.encoding import GROUP_SIZE
        from llmzip.format import scan
        from llmzip.loading import load_codec

        header = next(scan(io.BytesIO(packed.read_bytes()))).header
        codec = load_codec(self._encoding)
        size = default_chunk_size(codec.artefact.spec, codec.windowing.window, min(n_raw, GROUP_SIZE))
        windows = {"window": header.window, "overlap": header.overlap} if header.uses_model else {}
        device = device_name(codec.backend.name)
        return {"device": device, "threads": self._encoding.n_threads, "chunk_size": size, **windows}
