from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXT = b"It is the same text again and again; it is the same text again. " * 30
QUICK = ("--model", "none", "--against", "zlib", "--against", "bzip2")


@pytest.fixture(autouse=True)
def _text(folder: Path) -> None:
    (folder / "text").write_bytes(TEXT)


def test_tables_and_files_tell_the_same(run: Any, folder: Path) -> None:
    """The terminal, JSON, CSV and the page have every contender with its size, and both ways are measured."""
    done = run("bench", "text", *QUICK, "--repeats", "2", "--json", "o.json", "--csv", "o.csv", "--html", "o.html")
    assert (done.returncode, done.stderr) == (0, b"")
    facts = json.loads((folder / "o.json").read_bytes())
    sizes = {row["contender"]: row["n_packed"] for row in facts["rows"]}
    assert list(sizes) == ["zlib -9", "bzip2 -9"]
    shown = {line[: line.index("  ")]: line.split() for line in done.stdout.decode().splitlines() if "-9  " in line}
    assert {name: int(words[2]) for name, words in shown.items()} == sizes
    rows = list(csv.DictReader((folder / "o.csv").read_text().splitlines()))
    assert {row["contender"]: int(row["packed_bytes"]) for row in rows} == sizes
    assert all(float(row["encode_kb_per_s"]) > 0 < float(row["decode_kb_per_s"]) for row in rows)
    assert all(row["repeats"] == "2" and int(row["decode_peak_bytes"]) > 10**6 for row in rows)
    assert all(
        f"<td>{size}" in (folder / "o.html").read_text().replace(f' data-value="{size}"', "") for size in sizes.values()
    )
    assert facts["files"][0]["n_bytes"] == len(TEXT)
    assert facts["command"].startswith("llmzip bench text --model none")


def test_wrong_decoder_is_a_row_and_a_failure(run: Any, folder: Path) -> None:
    """The others are measured all the same, the files are written, and the exit status is that of the error."""
    done = run("bench", "text", *QUICK, "--against", "bad=cat ; head -c 9", "--json", "o.json")
    assert done.returncode == 30
    assert b"bad         wrong: decode: expected 1920 bytes, found 9\n" in done.stdout
    assert [row["status"] for row in json.loads((folder / "o.json").read_bytes())["rows"]] == ["ok", "ok", "wrong"]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [("none", 61, b"No such file"), (".", 63, b"found a directory"), ("empty", 50, b"one byte")],
)
def test_file_that_cannot_be_read_is_a_row_and_a_failure(
    name: str, code: int, reason: bytes, run: Any, folder: Path
) -> None:
    """The files after it are measured all the same."""
    (folder / "empty").touch()
    done = run("bench", name, "text", *QUICK, "--csv", "o.csv")
    assert done.returncode == code
    assert reason in done.stdout
    rows = list(csv.DictReader((folder / "o.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["unreadable", "ok", "ok"]


def test_opponents_that_are_not_installed_are_rows(run: Any, folder: Path) -> None:
    """By default that is no failure; who names one wants it."""
    done = run("bench", "text", "--model", "none", "--json", "o.json", PATH=str(folder))
    assert done.returncode == 0
    rows = {row["key"]: row for row in json.loads((folder / "o.json").read_bytes())["rows"]}
    assert rows["zpaq"]["reason"] == "expected the program zpaq on PATH, found none"
    assert {name for name, row in rows.items() if row["status"] == "missing"} >= {"zpaq", "7z", "bzip3", "lrzip"}
    assert {name for name, row in rows.items() if row["status"] == "ok"} >= {"zlib", "bzip2", "xz", "zstd-22", "brotli"}
    assert b"zpaq -m5" in done.stdout
    assert run("bench", "text", "--model", "none", "--against", "zpaq", PATH=str(folder)).returncode == 40


def test_what_cannot_be_written_is_refused_before_anything_runs(run: Any, folder: Path) -> None:
    """A file that exists stays as it is without -f, and no half of one is left."""
    (folder / "o.csv").write_text("mine")
    done = run("bench", "text", *QUICK, "--html", "o.html", "--csv", "o.csv")
    assert (done.returncode, done.stdout) == (62, b"")
    assert (folder / "o.csv").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["o.csv", "text"]
    assert run("bench", "text", *QUICK, "--csv", "o.csv", "-f").returncode == 0
    assert (folder / "o.csv").read_text().startswith("file,")


def test_standard_output_can_be_the_target(run: Any) -> None:
    """Then the tables go to standard error."""
    done = run("bench", "text", *QUICK, "--json", "-")
    assert [row["contender"] for row in json.loads(done.stdout)["rows"]] == ["zlib -9", "bzip2 -9"]
    assert b"compressor" in done.stderr


def test_limit_fresh_text_and_names(run: Any, folder: Path) -> None:
    """The beginning alone, a file whose date is told, and two files of one name under their paths."""
    (folder / "deep").mkdir()
    (folder / "deep" / "text").write_bytes(TEXT[::-1])
    os.utime(folder / "deep" / "text", (86400 * 365, 86400 * 365))
    done = run("bench", "text", "--fresh", "deep/text", "--limit", "1K", *QUICK)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("text[:1024]: 1,024 bytes; unknown file, last changed 2")
    assert "deep/text[:1024]: 1,024 bytes; fresh text, last changed 1971-01-01" in lines
    assert "all 2 files" in lines


def test_corpus_takes_known_files_only(run: Any) -> None:
    """A folder without any is refused, and so is one that is not there."""
    done = run("bench", "--corpus", ".", *QUICK)
    assert done.returncode == 50
    assert done.stderr.startswith(b"llmzip: .: expected a file that is known by its digest, found none")
    assert run("bench", "--corpus", "none", *QUICK).returncode == 63


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["text", "--model", "no-such-model"], 21, "model no-such-model: expected one of"),
        (["text", "--model", "none", "--against", "none"], 50, "expected a model or an opponent"),
        (["text", "--against", "gzip"], 50, "against: expected default, none, one of zlib"),
        ([], 2, "expected a file"),
    ],
    ids=["model", "nobody", "opponent", "file"],
)
def test_wrong_wishes_are_refused_at_once(arguments: list[str], code: int, message: str, run: Any) -> None:
    """One line, and nothing is measured."""
    done = run("bench", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr.decode()


def test_nothing_goes_on_after_the_end(command: list[str], folder: Path) -> None:
    """Asked to end, it ends the program that an opponent is, and leaves no half of a file."""
    script = f"import os, time; open({str(folder / 'id')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    slow = f"{sys.executable} -c {shlex.quote(script)} ; cat"
    arguments = ["bench", "text", "--model", "none", "--against", slow, "--json", "o.json"]
    process = subprocess.Popen([*command, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        _wait_for(lambda: (folder / "id").exists() and (folder / "id").read_text() != "")
        process.terminate()
        assert process.wait(30) == 143
    finally:
        process.kill()
    child = Path("/proc") / (folder / "id").read_text()
    if child.parent.is_dir():
        _wait_for(lambda: not child.exists() or "State:\tZ" in (child / "status").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["id", "text"]


def _wait_for(come: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not come():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_heavy_loads_for_help() -> None:
    """The command costs no other command time."""
    code = "import sys, llmzip.cli; print(sorted({'numpy', 'torch', 'llmzip.bench', 'csv'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
