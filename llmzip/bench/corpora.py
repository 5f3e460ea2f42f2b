"""Files that are known by their digests, and what is said of a file that is measured.

Figures of two people can be compared where the bytes were the same. `corpora.toml` has the digests; the files
themselves come from the user.
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from llmzip.errors import ConfigError, NotARegularFileError

_PIECE = 1 << 20


@dataclass(frozen=True)
class Known:
    """A file of a public corpus.

    Attributes:
        name: what it is called there.
        corpus: which one.
        kind: prose, wiki, code, markup, JSON, logs, non-English or binary.
        size: in bytes.
        sha256: in hex.
        source: where the corpus is.
        licence: what is known of it.
    """

    name: str
    corpus: str
    kind: str
    size: int
    sha256: str
    source: str
    licence: str


@dataclass(frozen=True)
class Text:
    """A file that is measured, or its beginning.

    Attributes:
        name: in tables.
        path: as the user wrote it.
        n_bytes: that are measured.
        sha256: of these, in hex.
        whole: whether these are all that the file has.
        known: what they are, or where they are the beginning of the file, what that is; None for an unknown file.
        date: when the file was last changed, in UTC.
        fresh: whether the user says that no model has seen it.
    """

    name: str
    path: str
    n_bytes: int
    sha256: str
    whole: bool
    known: Known | None
    date: str
    fresh: bool = False

    @property
    def origin(self) -> str:
        """Corpus and kind, or that it is unknown, with its date."""
        if self.known is not None:
            part = "" if self.sha256 == self.known.sha256 else f"first {self.n_bytes:,} bytes of "
            return f"{part}{self.known.name}, {self.known.corpus}, {self.known.kind}"
        return f"{'fresh text' if self.fresh else 'unknown file'}, last changed {self.date}"


@functools.cache
def known_files() -> dict[str, Known]:
    """All known files, by their digests."""
    table = tomllib.loads(resources.files("llmzip.bench").joinpath("corpora.toml").read_text(encoding="utf-8"))
    found = {}
    for corpus in table["corpus"]:
        for file in corpus["files"]:
            found[file["sha256"]] = Known(
                corpus=corpus["name"], source=corpus["source"], licence=corpus["licence"], **file
            )
    return found


def find_known(folder: Path) -> Iterator[Path]:
    """Every known file below a folder, once, in the order of their paths.

    Raises:
        NotARegularFileError: there is no such folder.
    """
    if not folder.is_dir():
        raise NotARegularFileError("expected a folder, found none", path=str(folder))
    sizes = {known.size for known in known_files().values()}
    seen = set()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size in sizes:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest in known_files() and digest not in seen:
                seen.add(digest)
                yield path


def take(name: str, path: str, limit: int | None, target: Path, *, fresh: bool = False) -> Text:
    """Copy a file, or its beginning, to where it is measured, and say what it is.

    Args:
        name: of the file, in tables.
        path: of it.
        limit: bytes to take at most.
        target: the copy.
        fresh: what the user says of it.

    Raises:
        OSError: it cannot be read.
        NotARegularFileError: it is a directory.
        ConfigError: it is empty.
    """
    source = Path(path)
    if source.is_dir():
        raise NotARegularFileError("expected a file, found a directory", path=path)
    taken, rest = hashlib.sha256(), limit
    with source.open("rb") as file, target.open("wb") as copy:
        while data := file.read(_PIECE if rest is None else min(_PIECE, rest)):
            taken.update(data)
            copy.write(data)
            rest = None if rest is None else rest - len(data)
        n_bytes = copy.tell()
        size = source.stat().st_size
        known = known_files().get(taken.hexdigest()) or _known_whole(source, size)
    if not n_bytes:
        raise ConfigError(f"{path}: expected at least one byte, found none")
    date = datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%d")
    name = name if n_bytes >= size else f"{name}[:{n_bytes}]"
    return Text(name, path, n_bytes, taken.hexdigest(), n_bytes >= size, known, date, fresh)


def _known_whole(path: Path, size: int) -> Known | None:
    if size not in {known.size for known in known_files().values()}:
        return None
    with path.open("rb") as file:
        return known_files().get(hashlib.file_digest(file, "sha256").hexdigest())
