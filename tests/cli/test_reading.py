from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmzip.format import FrameWriter, Header, Method

_TEXT = b"".join(b"%06d\n" % i for i in range(20_000))


@pytest.fixture
def archive(run: Any, folder: Path) -> Path:
    """Give an archive of many chunks."""
    (folder / "text").write_bytes(_TEXT)
    assert run("compress", "--chunk-size", "1K", "text").returncode == 0
    return folder / "text.llmz"


def test_list_shows_a_line_for_each_archive(run: Any, archive: Path) -> None:
    """Sizes and chunks are told without decoding, for people and for programs."""
    lines = run("list", archive.name, archive.name).stdout.decode().splitlines()
    assert len(lines) == 3
    (row,) = json.loads(run("list", "--json", archive.name).stdout)
    assert row == {
        "file": "text.llmz",
        "archive_length": archive.stat().st_size,
        "raw_length": len(_TEXT),
        "n_frames": 1,
        "n_chunks": 137,
        "models": [],
    }
    assert lines[1].split() == [str(row["archive_length"]), "140000", "100.52%", "137", "-", "text.llmz"]


def test_info_shows_what_a_frame_says(run: Any, folder: Path) -> None:
    """Versions, model, window, chunks by method and digest of each frame are told."""
    with (folder / "a.llmz").open("wb") as file:
        writer = FrameWriter(file, Header(window=1024, overlap=256, artefact_id=b"\1\2\3\4\5", canary=b"ab"))
        writer.write_chunk(Method.MODEL, bytes(1000), bytes(10))
        writer.write_chunk(Method.GENERAL, bytes(2000), bytes(20))
        writer.finish()
    facts = json.loads(run("info", "--json", "a.llmz").stdout)
    (frame,) = facts["frames"]
    assert (frame["model"], frame["canary"], frame["window"], frame["overlap"]) == ("0102030405", "6162", 1024, 256)
    assert frame["chunks"]["model"] == {"n_chunks": 1, "raw_length": 1000, "payload_length": 10}
    text = run("info", "a.llmz").stdout.decode()
    assert "window               1024" in text
    assert "general: 1 chunks, 2000 -> 20 bytes" in text


def test_test_decodes_and_writes_nothing(run: Any, archive: Path) -> None:
    """A good archive is ok; a damaged one has the exit code of its error."""
    before = sorted(archive.parent.iterdir())
    assert run("test", archive.name).stdout == b"text.llmz: ok, 140000 bytes\n"
    assert json.loads(run("test", "--json", archive.name).stdout) == [
        {"file": "text.llmz", "ok": True, "raw_length": 140000}
    ]
    blob = bytearray(archive.read_bytes())
    blob[5000] ^= 1
    archive.write_bytes(blob)
    assert run("test", archive.name).returncode == 14
    assert sorted(archive.parent.iterdir()) == before


def test_test_names_every_damaged_chunk(run: Any, archive: Path) -> None:
    """By the bytes of the content that it holds; those of other archives too, and damage between chunks."""
    whole = archive.read_bytes()
    blob = bytearray(whole)
    blob[5000] ^= 1
    blob[100_000] ^= 1
    archive.write_bytes(blob)
    (archive.parent / "cut.llmz").write_bytes(whole[:60_000])
    done = run("test", archive.name, "cut.llmz")
    first, second, third = done.stderr.decode().splitlines()
    assert done.returncode == 14
    shape = r"text\.llmz: bytes (\d+) to (\d+): chunk check: stored \w+, computed \w+ at offset \d+"
    ranges = [tuple(map(int, re.fullmatch(shape, line).groups())) for line in (first, second)]  # type: ignore[union-attr]
    assert all(start < damaged < stop for (start, stop), damaged in zip(ranges, (4950, 99_450), strict=True))
    assert third.startswith("cut.llmz: chunk payload: need ")
    facts, cut = json.loads(run("test", "--json", archive.name, "cut.llmz").stdout)
    assert (facts["ok"], [chunk["raw_offset"] for chunk in facts["damaged"]]) == (False, [start for start, _ in ranges])
    assert not cut["ok"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0:10", slice(0, 10)),
        ("5000:90K", slice(5000, 90 * 1024)),
        (":3", slice(0, 3)),
        ("139990:", slice(139990, None)),
        ("139990:1G", slice(139990, None)),
        ("7:7", slice(0, 0)),
    ],
)
def test_cat_gives_any_range(run: Any, archive: Path, text: str, wanted: slice) -> None:
    """A range has Python's meaning of A:B."""
    done = run("cat", archive.name, "--range", text)
    assert (done.returncode, done.stdout) == (0, _TEXT[wanted])


@pytest.mark.parametrize("text", ["9:3", "3", "x:y", "-1:3"])
def test_a_range_that_is_none_is_a_wrong_command_line(run: Any, archive: Path, text: str) -> None:
    """The message says what a range looks like."""
    done = run("cat", archive.name, "--range", text)
    assert done.returncode == 2
    assert b"expected" in done.stderr


def test_cat_gives_the_whole_from_a_pipe_but_no_range(run: Any, archive: Path) -> None:
    """A pipe cannot seek."""
    assert run("cat", "-", data=archive.read_bytes()).stdout == _TEXT
    assert run("cat", "-", "--range", "1:2", data=archive.read_bytes()).returncode == 50


def test_help_list_and_info_load_nothing_heavy(archive: Path) -> None:
    """Start-up stays short because numpy, torch and the like are loaded when used only."""
    heavy = (
        "{'numpy', 'torch', 'transformers', 'tokenizers', 'numba', 'constriction', 'zstandard', 'tqdm', 'llmzip.codec'}"
    )
    for args in (["--help"], ["list", archive.name], ["info", archive.name]):
        code = (
            "import sys\nfrom llmzip.cli import app\n"
            f"app({args!r}, standalone_mode=False)\n"
            f"found = {heavy} & set(sys.modules)\nassert not found, found\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
