from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard

from llmzip.errors import FileError, FileMissingError
from llmzip_training.shards import read_shards, split_documents

WriteShard = Callable[[str, Iterable[str]], Path]


def test_split_holds_out_the_last_two_percent() -> None:
    """Two documents of a hundred small ones are held out, the last two, and nothing is lost."""
    documents = [f"document {i}" for i in range(100)]
    train, held_out = split_documents(documents)
    assert list(train + held_out) == documents
    assert held_out == ("document 98", "document 99")


def test_split_stops_at_its_limit_in_bytes() -> None:
    """Long documents are held out until their bytes reach the limit, then no more."""
    _, held_out = split_documents(["x" * 150_000] * 1000)
    assert len(held_out) == 2


def test_split_leaves_a_single_document_to_training() -> None:
    """There is always something to train on."""
    assert split_documents(["only"]) == (("only",), ())


def test_shards_come_in_the_order_of_their_names(data: Path, write_shard: WriteShard) -> None:
    """Whatever order they were made in; other files are no shards."""
    write_shard("b", ["later"])
    write_shard("a", ["earlier", "held out"])
    (data / "MANIFEST.tsv").write_text("shard\n")
    assert [(shard.name, shard.train) for shard in read_shards(data)] == [("a", ("earlier",)), ("b", ("later",))]


def test_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """A wrong data folder is named in the error."""
    with pytest.raises(FileMissingError, match=f"^{tmp_path}: .*expected .*found none"):
        list(read_shards(tmp_path))


FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(b"some text\0" * 500)
CHANGED = FRAME[:-1] + bytes([FRAME[-1] ^ 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a whole zstd frame, found its first 0 bytes"),
        (b"plain text", "expected a zstd frame, found a damaged one"),
        (FRAME[:-6], "expected a whole zstd frame"),
        (FRAME[:12], "expected a whole zstd frame"),
        (CHANGED, "damaged one: .*checksum"),
        (FRAME + b"tail", "expected one zstd frame, found 4 bytes after it"),
        (zstandard.compress(b"good \xff bad"), "expected UTF-8, found byte 0xff at offset 5"),
    ],
    ids=["empty", "no-zstd", "cut-end", "cut-start", "checksum", "tail", "not-utf8"],
)
def test_damaged_shard_is_refused_by_name(data: Path, content: bytes, message: str) -> None:
    """No damaged text is trained on in silence."""
    path = data / "bad.txt.zst"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"^{path}: shard: {message}|^{path}: shard: expected .*{message}"):
        list(read_shards(data))
