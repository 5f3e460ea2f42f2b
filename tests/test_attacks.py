from __future__ import annotations

import contextlib
import io
import runpy
from pathlib import Path

import pytest

import llmzip.errors
from llmzip.archive import decompress, verify_stream
from llmzip.contents import find_members
from llmzip.decoding import read_range
from llmzip.errors import LimitError, LlmzipError
from llmzip.extraction import Extractor
from llmzip.format import limits, scan
from llmzip.options import DecompressOptions
from llmzip.salvage import salvage_stream

FOLDER = Path(__file__).parent / "attacks"
ATTACKS = runpy.run_path(str(FOLDER / "make.py"))["make"]()
FILES = {path.stem: path.read_bytes() for path in (FOLDER / "files").glob("*.llmz")}
EXPECTED = [line.split("\t") for line in (FOLDER / "expected.tsv").read_text(encoding="utf-8").splitlines()]
OPTIONS = DecompressOptions(threads=1, workers=0)
# Limits that no archive can exceed, or only a very large one: each has a test of its own.
_ELSEWHERE = {"MIN_WINDOW", "MIN_DICTIONARY", "MAX_DICTIONARY", "MAX_VARINT_SIZE", "MAX_MTIME", "MAX_MEMBERS"}
_OF_WRITERS = {"MAX_TRAILER_LENGTH"}


def test_files_are_those_of_the_script() -> None:
    """What is made is what lies there."""
    assert {name: attack.blob for name, attack in ATTACKS.items()} == FILES
    assert [row[0] for row in EXPECTED] == sorted(ATTACKS)


@pytest.mark.parametrize(("name", "error", "words"), EXPECTED, ids=[row[0] for row in EXPECTED])
def test_attack_is_refused(name: str, error: str, words: str) -> None:
    """With the error that the list has, and never any other class."""
    with pytest.raises(LlmzipError) as caught:
        decompress(FILES[name], OPTIONS)
    assert type(caught.value) is getattr(llmzip.errors, error)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(FILES))
def test_attack_does_no_harm_in_other_ways(name: str, tmp_path: Path) -> None:
    """Listing, ranges, tests and salvage find nothing or end with our errors; nothing leaves the folder."""
    (tmp_path / "folder").mkdir()
    blob = FILES[name]

    def extract() -> None:
        file = io.BytesIO(blob)
        Extractor(str(tmp_path / "folder")).extract(file, find_members(file), OPTIONS)

    for way in (
        lambda: list(scan(io.BytesIO(blob))),
        lambda: list(read_range(io.BytesIO(blob), 2, 4, OPTIONS)),
        lambda: list(verify_stream(io.BytesIO(blob), OPTIONS)),
        lambda: salvage_stream(io.BytesIO(blob), io.BytesIO(), OPTIONS),
        extract,
    ):
        with contextlib.suppress(LlmzipError):
            way()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.at_limit])
def test_limit_itself_is_allowed(name: str) -> None:
    """Only what is above it is refused for it."""
    error = _error_of(ATTACKS[name].at_limit)
    assert not isinstance(error, LimitError)
    assert ATTACKS[name].words not in str(error)


def _error_of(blob: bytes) -> LlmzipError | None:
    try:
        decompress(blob, OPTIONS)
    except LlmzipError as error:
        return error
    return None


def test_every_limit_has_an_attack() -> None:
    """A limit that is added needs one, or a test of its own."""
    names = {name for name in vars(limits) if name.startswith(("MAX_", "MIN_"))}
    assert names - _ELSEWHERE - _OF_WRITERS == {attack.limit for attack in ATTACKS.values() if attack.limit}
