"""Every error that llmzip raises on purpose, with the exit code that the command line gives it.

```
LlmzipError                     1   anything llmzip raises on purpose
├── FormatError                10   the bytes are not a valid archive
│   ├── NotAnArchiveError      11   wrong magic
│   ├── VersionError           12   a version, flag, method or section this reader does not know
│   ├── TruncatedError         13   ends before a field that the format promises
│   ├── ChecksumError          14   stored and computed checksum differ
│   ├── LimitError             15   above a limit of format/limits.py, or above what the caller allows
│   └── LossError              16   part of the content is lost; the rest was saved
├── ModelError                 20
│   ├── ModelNotFoundError     21   no such model on this machine
│   ├── ModelMismatchError     22   the archive needs another model, or the canary differs
│   ├── ModelInvalidError      23   artefact damaged, or widths out of bounds
│   ├── ConditionerMissingError 24  no such conditioner on this machine
│   └── ConditionerInvalidError 25  a conditioner file is damaged, or belongs to another model
├── ExactnessError             30   a backend differs from the reference, or a round trip failed
├── BackendError               40   asked for a backend that cannot run here
│   └── DeviceMemoryError      42   a GPU has no memory left for what is asked of it
├── WorkerError                41   a worker process ended before its work
├── ConfigError                50   a configuration that contradicts itself
├── FileError                  60   a file cannot be read or written
│   ├── FileMissingError       61   an input that does not exist
│   ├── FileExistsRefusedError 62   a target that exists, without --force
│   ├── NotARegularFileError   63   a directory where a file is needed
│   ├── PermissionRefusedError 64   the system does not let us read or write it
│   ├── DiskFullError          65   no space left, or above a quota
│   └── TerminalRefusedError   66   binary output to a terminal
└── DivergedError              70   a loss or gradient of training is not finite
```

0 is success, 2 a wrong command line, 130 an interruption by the keyboard.

Each class takes either a finished sentence or the facts it makes the sentence from; the facts stay readable as
attributes (`None` where a finished sentence was given without them).
"""

from __future__ import annotations

import errno
from typing import ClassVar


class LlmzipError(Exception):
    """Anything llmzip raises on purpose."""

    exit_code: ClassVar[int] = 1


class FormatError(LlmzipError):
    """The bytes are not a valid archive.

    Args:
        message: what was expected and what was found.
        field: name of the field in SPEC.md.
        offset: position of the field from the start of the archive, in bytes; added to the message.
        have: the value found.
        need: the value expected, or the bound that it breaks.
    """

    exit_code: ClassVar[int] = 10

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        offset: int | None = None,
        need: object = None,
        have: object = None,
    ) -> None:
        prefix = "" if field is None else f"{field}: "
        suffix = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{prefix}{message}{suffix}")
        self.field = field
        self.offset = offset
        self.need = need
        self.have = have


class NotAnArchiveError(FormatError):
    """The bytes do not begin with the magic."""

    exit_code: ClassVar[int] = 11


class VersionError(FormatError):
    """A version, flag, method or section that this reader does not know."""

    exit_code: ClassVar[int] = 12


class TruncatedError(FormatError):
    """The archive ends before a field that the format promises."""

    exit_code: ClassVar[int] = 13

    @classmethod
    def short(cls, field: str, offset: int, need: int, have: int) -> TruncatedError:
        """Make the error for a field of `need` bytes at `offset` of which only `have` are there."""
        return cls(f"need {need} bytes, {have} left", field=field, offset=offset, need=need, have=have)


class ChecksumError(FormatError):
    """Stored and computed checksum differ."""

    exit_code: ClassVar[int] = 14

    @classmethod
    def differs(cls, field: str, offset: int, need: bytes, have: bytes) -> ChecksumError:
        """Make the error for a checksum stored as `need` at `offset` and computed as `have`."""
        message = f"stored {need.hex()}, computed {have.hex()}"
        return cls(message, field=field, offset=offset, need=need, have=have)


class LimitError(FormatError):
    """A value above a limit of the format, or above what --memory or --max-size allow."""

    exit_code: ClassVar[int] = 15

    @classmethod
    def above(cls, field: str, offset: int, limit: int, have: int) -> LimitError:
        """Make the error for the value `have` at `offset`, which may be at most `limit`."""
        return cls(f"at most {limit} allowed, found {have}", field=field, offset=offset, need=limit, have=have)


class LossError(FormatError):
    """Part of an archive's content is lost; what is left was saved."""

    exit_code: ClassVar[int] = 16


class ModelError(LlmzipError):
    """A model cannot be used."""

    exit_code: ClassVar[int] = 20


class ModelNotFoundError(ModelError):
    """No model of this name or id on this machine."""

    exit_code: ClassVar[int] = 21


class ModelMismatchError(ModelError):
    """The archive was made with another model, or this machine computes another canary.

    Args:
        message: what the archive needs, what is there, and what to do.
        need: what the archive names (an artefact id or a canary, in hex).
        have: what this machine has.
    """

    exit_code: ClassVar[int] = 22

    def __init__(self, message: str, *, need: str | None = None, have: str | None = None) -> None:
        super().__init__(message)
        self.need = need
        self.have = have


class ModelInvalidError(ModelError):
    """An artefact that is damaged, or whose numbers are out of bounds."""

    exit_code: ClassVar[int] = 23


class ConditionerMissingError(ModelError):
    """No such conditioner on this machine."""

    exit_code: ClassVar[int] = 24


class ConditionerInvalidError(ModelError):
    """A conditioner file is damaged, or belongs to another model."""

    exit_code: ClassVar[int] = 25


class ExactnessError(LlmzipError):
    """A backend differs from the reference, or a round trip failed."""

    exit_code: ClassVar[int] = 30


class BackendError(LlmzipError):
    """A backend was asked for that cannot run here."""

    exit_code: ClassVar[int] = 40


class DeviceMemoryError(BackendError):
    """A GPU has no memory left for what is asked of it; less of it at once may fit."""

    exit_code: ClassVar[int] = 42


class WorkerError(LlmzipError):
    """A worker process ended before its work was done, or could not begin it."""

    exit_code: ClassVar[int] = 41


class ConfigError(LlmzipError):
    """A configuration that contradicts itself or is out of range."""

    exit_code: ClassVar[int] = 50


class FileError(LlmzipError):
    """A file cannot be read or written.

    Args:
        message: what happened.
        path: the file; put before the message.
    """

    exit_code: ClassVar[int] = 60

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message if path is None else f"{path}: {message}")
        self.path = path

    @staticmethod
    def from_os_error(error: OSError) -> FileError:
        """Give the class for an operating system's error, with its file name and its words."""
        kind = _KIND_OF_ERRNO.get(error.errno or 0, FileError)
        path = None if error.filename is None else str(error.filename)
        return kind(error.strerror or str(error), path=path)


class FileMissingError(FileError):
    """An input that does not exist."""

    exit_code: ClassVar[int] = 61


class FileExistsRefusedError(FileError):
    """A target that exists already, and nobody said that it may be replaced."""

    exit_code: ClassVar[int] = 62


class NotARegularFileError(FileError):
    """A directory where a file is needed."""

    exit_code: ClassVar[int] = 63


class PermissionRefusedError(FileError):
    """The system does not let this user read or write the file."""

    exit_code: ClassVar[int] = 64


class DiskFullError(FileError):
    """No space left on the device, or a quota is used up."""

    exit_code: ClassVar[int] = 65


class TerminalRefusedError(FileError):
    """Binary output would go to a terminal."""

    exit_code: ClassVar[int] = 66


class DivergedError(LlmzipError):
    """A loss or gradient of training that is no finite number."""

    exit_code: ClassVar[int] = 70


_KIND_OF_ERRNO: dict[int, type[FileError]] = {
    errno.ENOENT: FileMissingError,
    errno.EEXIST: FileExistsRefusedError,
    errno.EISDIR: NotARegularFileError,
    errno.ENOTDIR: NotARegularFileError,
    errno.EACCES: PermissionRefusedError,
    errno.EPERM: PermissionRefusedError,
    errno.EROFS: PermissionRefusedError,
    errno.ENOSPC: DiskFullError,
    errno.EDQUOT: DiskFullError,
    errno.EFBIG: DiskFullError,
}
