# ruff: noqa: TID253
"""A corpus, texts and a run that take a second, models that differ everywhere from a new one, and command lines."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import zstandard

from llmzip.models.artefact import Artefact
from llmzip_training.model import LanguageModel, ModelConfig
from llmzip_training.streams import TokenStream, encode_stream

MakeText = Callable[[int], bytes]
WriteShard = Callable[[str, Iterable[str]], Path]

RUN_FILE = """\
[model]
vocab_size = 300
width = 16
n_layers = 2
n_heads = 2
n_kv_heads = 1
ffn_width = 24
context = 32
attention = "selective"

[optimiser]
{optimiser}
adamw_rate = 0.01
weight_decay = 0.02
warmup_steps = 2
decay_share = 0.5

[schedule]
{schedule}
seed = 3

[corpus.shares]
numbers = 0.5

[[stages]]
until = 0.5
context = 16
batch = 8
accumulate = {accumulate}

[[stages]]
until = 1.0
context = 32
batch = 4
accumulate = {accumulate}
memory_weight = 0.02
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty folder for shards."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def write_shard(data: Path) -> WriteShard:
    """Write documents as a shard of `data`."""

    def _write(name: str, documents: Iterable[str]) -> Path:
        path = data / f"{name}.txt.zst"
        path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress("\0".join(documents).encode()))
        return path

    return _write


@pytest.fixture
def shards(data: Path, write_shard: WriteShard) -> Path:
    """A folder of two shards."""
    write_shard("articles", [f"Article {i} tells of the number {i} and of nothing else.\n" * 4 for i in range(120)])
    write_shard("numbers", [f"{i} times {i} is {i * i}, näïve or not.\n" * 3 for i in range(160)])
    return data


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run file of two stages for a tiny selective model; keywords fill its gaps."""

    def _write(
        schedule: str = "steps = 8\nlog_every = 2\nmeasure_every = 4",
        optimiser: str = "muon_rate = 0.02",
        accumulate: int = 1,
    ) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(RUN_FILE.format(schedule=schedule, optimiser=optimiser, accumulate=accumulate))
        return path

    return _write


@pytest.fixture
def wait_for_step() -> Callable[[Path, int, Callable[[], int | None]], None]:
    """Wait until the metrics of a run have that many lines; the last argument gives its exit status once it has one."""

    def _wait(out: Path, n_lines: int, poll: Callable[[], int | None]) -> None:
        path = out / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and poll() is None:
            if path.exists() and path.read_text().count("\n") >= n_lines:
                return
            time.sleep(0.005)
        raise AssertionError(f"process ended with {poll()} before line {n_lines} of {path}")

    return _wait


@pytest.fixture
def random_model() -> Callable[[ModelConfig], LanguageModel]:
    """A model with no tensor at its initial zeros."""

    def _make(config: ModelConfig) -> LanguageModel:
        torch.manual_seed(0)
        model = LanguageModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return _make


@pytest.fixture(scope="session")
def numbers() -> MakeText:
    """A document of digits, another for each number."""
    return lambda i: "".join(f"{i * j} {j}; " for j in range(30)).encode()


@pytest.fixture(scope="session")
def capitals() -> MakeText:
    """A document of capital letters, another for each number."""
    return lambda i: b"".join(b"QXZ%c WVK\n" % (65 + (i * j) % 26) for j in range(20))


@pytest.fixture(scope="session")
def streams(tiny_artefact: Artefact, numbers: MakeText, capitals: MakeText) -> tuple[TokenStream, TokenStream]:
    """Two kinds of text that the model `tiny` does not know, by turns; to train and to measure on."""
    documents = [kind(i) for i in range(60) for kind in (numbers, capitals)]
    return encode_stream(documents[:96], tiny_artefact), encode_stream(documents[96:], tiny_artefact)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A command line in this process, by its entry point; its exit code."""

    def _run(main: Callable[[], None], *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return int(ended.value.code or 0)

    return _run
