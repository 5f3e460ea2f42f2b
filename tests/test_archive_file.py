from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from llmzip.archive import compress, decompress
from llmzip.archive_file import ArchiveReader
from llmzip.archive_file import open as open_archive
from llmzip.errors import ChecksumError, FormatError, LlmzipError, NotAnArchiveError, TruncatedError
from llmzip.options import CompressOptions, DecompressOptions

pytestmark = pytest.mark.usefixtures("tiny_model")

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=500, threads=1)
DECODE = DecompressOptions(threads=1, lanes=4)


@pytest.fixture
def content(sample_text: bytes) -> bytes:
    """Several chunks of text and of bytes that are none."""
    return sample_text[:1700] + bytes(range(256)) + sample_text[1700:2500]


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    """An archive of `content`."""
    path = tmp_path / "text.llmz"
    path.write_bytes(compress(content, OPTIONS))
    return path


def test_what_is_written_is_read(tmp_path: Path, content: bytes) -> None:
    """In pieces of any size, also through a view; the file is what `compress` makes."""
    path = tmp_path / "new.llmz"
    with open_archive(path, "wb", OPTIONS) as file:
        assert file.writable()
        assert not file.readable()
        for start in range(0, len(content), 700):
            piece = content[start : start + 700]
            assert file.write(memoryview(piece)) == len(piece)
    assert path.read_bytes() == compress(content, OPTIONS)
    with open_archive(path, "rb", DECODE) as file:
        assert file.read() == content


def test_reading_in_pieces_and_seeking(path: Path, content: bytes) -> None:
    """Like a file of the content: positions, whence, beyond the end."""
    with open_archive(path, options=DECODE) as file:
        assert (file.readable(), file.seekable(), file.tell()) == (True, True, 0)
        first = file.read(10)
        assert content.startswith(first)
        assert 0 < len(first) <= 10
        for offset, whence, expected in [(600, 0, 600), (-5, 2, len(content) - 5), (0, 0, 0), (499, 0, 499)]:
            assert file.seek(offset, whence) == expected
            piece = file.read(3)
            assert len(piece) == 3
            assert content[expected:].startswith(piece)
            assert file.tell() == expected + len(piece)
        file.seek(100)
        assert file.seek(50, io.SEEK_CUR) == 150
        assert file.seek(10, io.SEEK_END) == len(content) + 10
        assert file.read(5) == b""


def test_reading_gives_all_that_was_asked_for(path: Path, content: bytes) -> None:
    """Like any buffered file of Python: across the ends of chunks, and by lines."""
    with open_archive(path, options=DECODE) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read(len(content) - 1) == content[:-1]
        assert file.seek(0) == 0
        assert file.readlines() == io.BytesIO(content).readlines()


def test_a_position_before_the_beginning_is_refused(path: Path) -> None:
    """As for files."""
    with open_archive(path, options=DECODE) as file, pytest.raises(ValueError, match="at least 0"):
        file.seek(-1)


def test_damage_shows_when_it_is_reached(path: Path, content: bytes) -> None:
    """The chunks before it can be read."""
    data = bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(bytes(data))
    with open_archive(path, options=DECODE) as file:
        assert file.read(300) == content[:300]
        with pytest.raises(FormatError):
            file.read()


def test_what_is_no_archive_is_refused_at_once(tmp_path: Path) -> None:
    """And the file is closed."""
    (tmp_path / "odd").write_bytes(b"something else altogether")
    with pytest.raises(NotAnArchiveError):
        open_archive(tmp_path / "odd")
    with pytest.raises(FileNotFoundError):
        open_archive(tmp_path / "none")


def test_an_error_while_writing_leaves_no_whole_archive(tmp_path: Path, content: bytes) -> None:
    """What is on the disk is refused by every reader."""

    def fail() -> None:
        with open_archive(tmp_path / "half.llmz", "wb", OPTIONS) as file:
            file.write(content)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fail()
    with pytest.raises(LlmzipError):
        decompress((tmp_path / "half.llmz").read_bytes(), DECODE)


def test_an_error_that_somebody_caught_leaves_no_whole_archive(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing after it writes no end, for there is a hole before it."""
    monkeypatch.setattr("llmzip.encoding.GROUP_SIZE", 500)

    def _interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    file = open_archive(tmp_path / "a.llmz", "wb", OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("llmzip.format.FrameWriter.write_chunk", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.write(content)
    file.close()
    with pytest.raises(TruncatedError):
        decompress((tmp_path / "a.llmz").read_bytes())


def test_what_cannot_be_read_once_cannot_be_read_twice(path: Path, content: bytes) -> None:
    """The second read is no end of file."""
    archive = bytearray(path.read_bytes())
    archive[len(archive) // 2] ^= 1
    path.write_bytes(archive)
    with ArchiveReader(path.open("rb"), DECODE) as file:
        file.seek(len(content) // 2)
        for _ in range(2):
            with pytest.raises(FormatError):
                file.readall()


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    """For both, also without a byte between."""
    writer = open_archive(tmp_path / "empty.llmz", "wb", OPTIONS)
    writer.close()
    writer.close()
    reader = open_archive(tmp_path / "empty.llmz")
    assert reader.read() == b""
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("w",), ValueError), (("r",), ValueError), (("wb", DECODE), TypeError)],
    ids=["w", "r", "options"],
)
def test_other_modes_and_options_are_refused(arguments: Any, error: type[Exception], tmp_path: Path) -> None:
    """A caller's mistake; no file appears."""
    with pytest.raises(error):
        open_archive(tmp_path / "new.llmz", *arguments)
    assert not list(tmp_path.iterdir())
    assert issubclass(ChecksumError, FormatError)
