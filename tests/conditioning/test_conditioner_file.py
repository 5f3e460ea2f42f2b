from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from llmzip.conditioning.chooser import Chooser
from llmzip.conditioning.conditioner_file import (
    MAGIC,
    ConditionerFile,
    read_conditioner_file,
    unpack_conditioner_file,
)
from llmzip.errors import ConditionerInvalidError, ConditionerMissingError, FormatError

CHOOSER = Chooser(np.arange(6, dtype=np.float32).reshape(3, 2), np.ones((3, 1), np.float32))


def test_a_file_comes_back(tmp_path: Path) -> None:
    """With notes and chooser; the id is that of model and set alone."""
    file = ConditionerFile("ab" * 32, b"body", {"names": ["one"]}, CHOOSER)
    (tmp_path / "a.cond").write_bytes(file.pack())
    found = read_conditioner_file(tmp_path / "a.cond")
    assert (found.artefact_id, found.body, found.notes) == (file.artefact_id, file.body, file.notes)
    assert found.chooser is not None
    assert (found.chooser.gains == CHOOSER.gains).all()
    assert (found.chooser.analysis == CHOOSER.analysis).all()
    assert found.id == ConditionerFile("ab" * 32, b"body").id != ConditionerFile("cd" * 32, b"body").id


def _sealed(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


GOOD = ConditionerFile("ab" * 32, b"body").pack()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "found no bytes"),
        (b"\x89LZC", "expected 89 4c 5a 43"),
        (GOOD[:20], "model id: need 32 bytes"),
        (GOOD[:-1], "checksum: need 4 bytes"),
        (GOOD + b"\0", "bytes, found"),
        (GOOD[:42] + b"B" + GOOD[43:], "expected the checksum of its bytes"),
        (_sealed(MAGIC + bytes(32) + b"\x81\x80\x40" + bytes(10)), "at most 1048576 bytes, found 1048577"),
        (_sealed(MAGIC + bytes(32) + b"\0\x01[\0"), "notes: expected JSON"),
        (_sealed(MAGIC + bytes(32) + b"\0\x02[]\0"), "a JSON object, found list"),
        (_sealed(MAGIC + bytes(32) + b"\0\x02{}\x05abcde"), "chooser: expected rows of equal length"),
        (_sealed(MAGIC + bytes(32) + b"\0\x02{}\x0e\2\0\0\0\0\0" + b"\0\0\xc0\x7f" * 2), "finite numbers"),
        (_sealed(MAGIC + bytes(32) + b"\0\x02{}\x0e\2\0\0\0\1\0" + bytes(8)), "gains and then an analysis"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    """Damaged, cut, oversized, carrying what is no number: with the name of the file."""
    (tmp_path / "bad.cond").write_bytes(data)
    with pytest.raises(ConditionerInvalidError, match=words) as caught:
        read_conditioner_file(tmp_path / "bad.cond")
    assert "bad.cond" in str(caught.value)


def test_any_turned_bit_is_found() -> None:
    """By the checksum, or before it."""
    data = ConditionerFile("ab" * 32, b"body", {"a": 1}, CHOOSER).pack()
    for i in range(len(data) * 8):
        turned = bytearray(data)
        turned[i // 8] ^= 1 << i % 8
        with pytest.raises((ConditionerInvalidError, FormatError)):
            unpack_conditioner_file(bytes(turned))


def test_a_missing_file_is_said_to_be(tmp_path: Path) -> None:
    """With what makes one."""
    with pytest.raises(ConditionerMissingError, match="make one by: llmzip train"):
        read_conditioner_file(tmp_path / "none.cond")


def test_what_is_too_long_is_not_written() -> None:
    """Nobody could read it."""
    with pytest.raises(ConditionerInvalidError, match="up to 1 MiB"):
        ConditionerFile("ab" * 32, bytes((1 << 20) + 1)).pack()
