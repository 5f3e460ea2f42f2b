from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmzip.models.store import StoredModel

Llmzip = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def llmzip(tmp_path: Path) -> Llmzip:
    """The installed command itself, with an empty data directory."""

    def _run(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", "from llmzip.cli import main; main()", *args],
            input=data,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "LLMZIP_HOME": str(tmp_path / "home")},
            timeout=240,
            check=False,
        )

    return _run


def test_a_model_is_added_listed_shown_used_and_removed(
    llmzip: Llmzip, tiny_model: StoredModel, sample_text: bytes, tmp_path: Path
) -> None:
    """The whole life of a model, its archives readable while it is there."""
    added = llmzip("models", "add", str(tiny_model.path), "--name", "mine")
    assert (added.returncode, added.stdout) == (0, f"mine {tiny_model.id}\n".encode())
    assert b"mine" in llmzip("models", "list").stdout
    facts = json.loads(llmzip("models", "show", "--json", tiny_model.id[:8]).stdout)
    assert (facts["name"], facts["id"], facts["bundled"]) == ("mine", tiny_model.id, False)
    (tmp_path / "text").write_bytes(sample_text[:3000])
    assert llmzip("compress", "--model", "mine", "text").returncode == 0
    assert llmzip("decompress", "-c", "text.llmz").stdout == sample_text[:3000]
    assert llmzip("models", "remove", "mine").returncode == 0
    assert b"mine" not in llmzip("models", "list").stdout
    missing = llmzip("decompress", "-c", "text.llmz")
    assert (missing.returncode, missing.stdout) == (21, b"")
    assert missing.stderr.count(b"\n") == 1


def test_the_bundled_model_codes_a_text_by_itself(llmzip: Llmzip, sample_text: bytes) -> None:
    """Without any other model, offline, through pipes."""
    packed = llmzip("compress", data=sample_text[:4000])
    assert packed.returncode == 0
    assert len(packed.stdout) < 4000 / 2
    assert llmzip("decompress", data=packed.stdout).stdout == sample_text[:4000]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("models", "show", "nosuch"), 21),
        (("models", "remove", "small"), 20),
        (("models", "add", "no/such/folder", "-y", "--name", "Not Valid"), 20),
        (("compress", "--model", "nosuch"), 21),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else str(value),
)
def test_mistakes_are_one_line_and_their_exit_code(llmzip: Llmzip, args: tuple[str, ...], code: int) -> None:
    """No traceback, nothing on standard output."""
    done = llmzip(*args, data=b"text")
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"llmzip: ")
    assert done.stderr.count(b"\n") == 1
