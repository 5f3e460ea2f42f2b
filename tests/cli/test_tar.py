from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _has_gnu_tar() -> bool:
    if shutil.which("tar") is None:
        return False
    return b"GNU" in subprocess.run(["tar", "--version"], capture_output=True, check=True).stdout


pytestmark = [
    pytest.mark.usefixtures("tiny_model"),
    pytest.mark.skipif(not _has_gnu_tar(), reason="-I, by which tar starts llmzip, is GNU tar's"),
]


@pytest.mark.parametrize("model", ["", " --model tiny --chunk-size 2K"])
def test_tar_works_both_ways(model: str, folder: Path, sample_text: bytes) -> None:
    """Its -I starts llmzip as a filter, with -d to read."""
    (folder / "notes").mkdir()
    (folder / "notes" / "one.py").write_bytes(sample_text[:3000])
    (folder / "notes" / "two").write_bytes(bytes(range(256)) * 20)
    (folder / "notes" / "link").symlink_to("two")
    filtered = f"{sys.executable} -m llmzip compress{model}"
    tar = ["tar", "-I", filtered]
    subprocess.run([*tar, "-cf", "notes.tar.llmz", "notes"], check=True, timeout=60)
    (folder / "there").mkdir()
    subprocess.run([*tar, "-xf", "notes.tar.llmz", "-C", "there"], check=True, timeout=60)
    for name in ("one.py", "two"):
        assert (folder / "there" / "notes" / name).read_bytes() == (folder / "notes" / name).read_bytes()
    assert (folder / "there" / "notes" / "link").readlink() == Path("two")
    listed = subprocess.run([*tar, "-tf", "notes.tar.llmz"], check=True, timeout=60, capture_output=True)
    assert b"notes/one.py" in listed.stdout
