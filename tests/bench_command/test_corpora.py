from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from llmzip.bench import corpora
from llmzip.bench.corpora import Known, find_known, known_files, take
from llmzip.errors import ConfigError, NotARegularFileError

CONTENT = b"a text that is known\n" * 9
KINDS = {"prose", "wiki", "code", "markup", "JSON", "logs", "non-English", "binary"}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """A file that is known in this test alone."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = Known("known.txt", "a corpus", "prose", len(CONTENT), digest, "https://there.example/", "public domain")
    monkeypatch.setattr(corpora, "known_files", lambda: {digest: file})
    return file


def test_known_files_are_all_described() -> None:
    """Digests are whole and none is there twice; each file has a size, a kind, a source and a licence."""
    text = Path(corpora.__file__).with_name("corpora.toml").read_text(encoding="utf-8")
    assert len(known_files()) == text.count("sha256 =")
    for digest, file in known_files().items():
        assert re.fullmatch("[0-9a-f]{64}", digest)
        assert digest == file.sha256
        assert file.size > 0
        assert file.kind in KINDS
        assert file.source
        assert file.licence


def test_every_kind_of_content_is_there() -> None:
    """From prose to binaries."""
    assert {file.kind for file in known_files().values()} == KINDS


def test_files_of_the_data_folder_are_known() -> None:
    """Where the texts of the project are, their digests are those of the registry, beginnings of enwik8 too."""
    data = Path(os.environ.get("LLMZIP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "test"
    if not data.is_dir():
        pytest.skip("no texts here")
    found = {path.name for path in find_known(data)}
    assert found == {path.name for path in data.iterdir()}
    sizes = [file.size for file in known_files().values() if file.name.startswith("enwik8, first")]
    raw = (data / "enwik8_1m").read_bytes()
    assert {hashlib.sha256(raw[:size]).hexdigest() for size in sizes} <= set(known_files())
    assert sorted(sizes) == [10_000, 50_000, 100_000, 1_000_000]


def test_known_files_of_a_folder_are_found_by_content(tmp_path: Path, known: Known) -> None:
    """Whatever they are called, below any folder, once; one of the same size is not taken."""
    del known
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(CONTENT)
    (tmp_path / "z").write_bytes(CONTENT)
    (tmp_path / "a").write_bytes(CONTENT[::-1])
    assert list(find_known(tmp_path)) == [tmp_path / "deep" / "b"]
    with pytest.raises(NotARegularFileError, match="expected a folder"):
        list(find_known(tmp_path / "none"))


@pytest.mark.parametrize(
    ("limit", "name", "origin"),
    [
        (None, "x.txt", "known.txt, a corpus, prose"),
        (10**6, "x.txt", "known.txt, a corpus, prose"),
        (50, "x.txt[:50]", "first 50 bytes of known.txt, a corpus, prose"),
    ],
)
def test_origin_of_a_known_file(limit: int | None, name: str, origin: str, tmp_path: Path, known: Known) -> None:
    """The corpus is named, and how much of the file is taken; the copy has just that."""
    (tmp_path / "x").write_bytes(CONTENT)
    text = take("x.txt", str(tmp_path / "x"), limit, tmp_path / "copy")
    assert (text.name, text.origin, text.known) == (name, origin, known)
    assert (tmp_path / "copy").read_bytes() == CONTENT[:limit]
    assert (text.n_bytes, text.sha256) == (len(CONTENT[:limit]), hashlib.sha256(CONTENT[:limit]).hexdigest())


def test_origin_of_other_files(tmp_path: Path) -> None:
    """Unknown, or fresh if the user says so, and when they were last changed."""
    path = tmp_path / "x"
    path.write_bytes(b"news")
    os.utime(path, (86400 * 365, 86400 * 365))
    origins = [take("x", str(path), None, tmp_path / "copy", fresh=fresh).origin for fresh in (False, True)]
    assert origins == ["unknown file, last changed 1971-01-01", "fresh text, last changed 1971-01-01"]


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    """Folders, empty files, files that are not there."""
    (tmp_path / "empty").touch()
    with pytest.raises(NotARegularFileError, match="found a directory"):
        take("x", str(tmp_path), None, tmp_path / "copy")
    with pytest.raises(ConfigError, match="empty: expected at least one byte"):
        take("x", str(tmp_path / "empty"), None, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        take("x", str(tmp_path / "none"), None, tmp_path / "copy")
