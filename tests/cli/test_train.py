from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from llmzip.cli import main

Llmzip = Callable[..., "subprocess.CompletedProcess[bytes]"]

RUN_FILE = """\
[model]
vocab_size = 270
width = 16
n_layers = 1
n_heads = 2
n_kv_heads = 1
ffn_width = 24
context = 16

[optimiser]
muon_rate = 0.02
adamw_rate = 0.01
weight_decay = 0.0
warmup_steps = 2

[schedule]
steps = 4

[[stages]]
until = 1.0
context = 16
batch = 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run file, a shard, and a damaged shard apart."""
    (tmp_path / "run.toml").write_text(RUN_FILE)
    text = "\0".join(f"Article {i} tells of the number {i} and of nothing else.\n" * 4 for i in range(80))
    for name, content in (("data", zstandard.compress(text.encode())), ("damaged", b"no zstd"), ("empty", b"")):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / "made.txt.zst").write_bytes(content)
    return tmp_path


@pytest.fixture
def llmzip(folder: Path) -> Llmzip:
    """The installed command itself, in the folder."""

    def _run(*args: str, program: str = "from llmzip.cli import main; main()") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", program, *args],
            capture_output=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
            check=False,
        )

    return _run


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Llmzip]:
    """The same in this process, where torch is loaded but once."""

    def _run(*args: str) -> subprocess.CompletedProcess[bytes]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["llmzip", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(args, ended.value.code, told.out.encode(), told.err.encode())

    handler = signal.getsignal(signal.SIGTERM)
    yield _run
    signal.signal(signal.SIGTERM, handler)


def test_run_file_is_trained_and_drawn(llmzip: Llmzip, folder: Path) -> None:
    """A tokenizer by a command of its own, training with it, and the picture of the finished run."""
    made = llmzip("train", "tokenizer", "--data", "data", "--vocab-size", "270", "--out", "mine.json")
    assert (made.returncode, made.stdout) == (0, b"mine.json: 270 tokens\n")
    options = ["--data", "data", "--out", "out", "--tokenizer", "mine.json", "--device", "cpu", "--threads", "1"]
    trained = llmzip("train", "lm", "run.toml", *options)
    assert trained.returncode == 0, trained.stderr.decode()
    lines = trained.stdout.decode().splitlines()
    assert lines[0].endswith("from step 0")
    assert lines[1].startswith("step 1 ")
    assert json.loads((folder / "out" / "held_out.json").read_text())["step"] == 4
    assert (folder / "out" / "tokenizer.json").read_bytes() == (folder / "mine.json").read_bytes()
    (folder / "out" / "loss.png").unlink(missing_ok=True)
    drawn = llmzip("train", "curve", "out")
    assert (drawn.returncode, drawn.stdout) == (0, b"out/loss.png\n")
    assert (folder / "out" / "loss.png").exists()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("lm", "nosuch.toml", "--data", "data", "--out", "out"), 61, b"nosuch.toml"),
        (("lm", "data/made.txt.zst", "--data", "data", "--out", "out"), 50, b"expected TOML"),
        (("lm", "run.toml", "--data", "empty", "--out", "out"), 61, b"expected *.txt.zst, found none"),
        (("lm", "run.toml", "--data", "damaged", "--out", "out"), 60, b"made.txt.zst: shard: expected a zstd frame"),
        (("lm", "run.toml", "--data", "data", "--out", "run.toml"), 62, b"run.toml"),
        (("lm", "run.toml", "--data", "data", "--out", "out", "--device", "abacus"), 40, b"device abacus"),
        (("tokenizer", "--data", "data", "--vocab-size", "256", "--out", "t.json"), 50, b"257 to 65536"),
        (("curve", "data"), 61, b"metrics.jsonl"),
        (("lm", "run.toml", "--out", "out"), 2, b"--data"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_line_and_their_exit_code(
    here: Llmzip, args: tuple[str, ...], code: int, words: bytes
) -> None:
    """No traceback."""
    done = here("train", *args)
    assert done.returncode == code, done.stderr.decode()
    assert words in done.stderr
    if code != 2:
        assert done.stderr.startswith(b"llmzip: ")
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("missing", ["llmzip_training", "torch"])
def test_missing_packages_are_named_with_what_to_install(llmzip: Llmzip, missing: str) -> None:
    """Where the trainer cannot run, the archiver's other commands still do."""
    program = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest)\n"
        "from llmzip.cli import main\n"
        "main()\n"
    )
    done = llmzip("train", "lm", "run.toml", "--data", "data", "--out", "out", program=program)
    assert done.returncode == 40
    assert (
        done.stderr
        == f"llmzip: training needs {missing}, which is not installed: pip install 'llmzip[train]'\n".encode()
    )


def test_help_of_training_loads_no_torch(llmzip: Llmzip) -> None:
    """What is only read is quick."""
    program = (
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'llmzip_training', 'tokenizers')\n"
        "atexit.register(lambda: print(sorted(set(heavy) & set(sys.modules)), file=sys.stderr))\n"
        "from llmzip.cli import main\n"
        "main()\n"
    )
    done = llmzip("train", "lm", "--help", program=program)
    assert done.returncode == 0
    assert done.stderr == b"[]\n"
