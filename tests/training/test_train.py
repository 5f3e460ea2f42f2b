# ruff: noqa: TID253
from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmzip.cli import main as llmzip
from llmzip.errors import BackendError, ConfigError
from llmzip_training.checkpoint import checkpoint_paths
from llmzip_training.metrics import read_metrics
from llmzip_training.run_file import load_run
from llmzip_training.start import StartConfig
from llmzip_training.tokenizer import train_tokenizer
from llmzip_training.train import Job, prepare_folder, train_language_model

WriteRun = Callable[..., Path]
WaitForStep = Callable[[Path, int, Callable[[], int | None]], None]


def _train(run_file: Path, data: Path, out: Path, **more: object) -> bool:
    return train_language_model(Job(run_file, data, out, device="cpu", threads=1, **more))  # type: ignore[arg-type]


def test_run_goes_from_shards_to_an_exported_folder(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """The whole way: tokenizer, token files, training, checkpoints, export, results, picture."""
    assert _train(write_run(), shards, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "hf").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    facts = json.loads((tmp_path / "out" / "held_out.json").read_text())
    assert facts["step"] == 8
    assert facts["bits_per_byte"].keys() == {"articles", "numbers", "all"}
    assert (tmp_path / "out" / "loss.png").exists() == (find_spec("matplotlib") is not None)
    assert [path.name for path in checkpoint_paths(tmp_path / "out")] == ["step-000000008.pt", "step-000000004.pt"]
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 1


def test_finished_run_is_not_trained_further(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """The same command again gives the same results."""
    _train(write_run(), shards, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "hf").iterdir()}
    assert _train(write_run(), shards, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "hf").iterdir()} == before


def test_freed_memory_is_kept(
    run: Callable[..., int], shards: Path, write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program gives it back to the system at once; arrays of a step would be faulted in again for the next."""
    thresholds: list[int] = []
    monkeypatch.setattr("llmzip.allocator._set", lambda **given: thresholds.append(given["trim_threshold"]))
    options = ("--data", shards, "--out", tmp_path / "out", "--pause-after", 0, "--device", "cpu", "--threads", 1)
    assert run(llmzip, "train", "lm", write_run(), *options) == 0
    assert thresholds[0] < 1 << 20 < thresholds[-1]


def test_pause_exports_and_the_run_continues(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """A run paused at once is at step 0, and finished by the same command."""
    assert not _train(write_run(), shards, tmp_path / "out", pause_after_s=0.0)
    assert (tmp_path / "out" / "hf" / "model.safetensors").exists()
    assert json.loads((tmp_path / "out" / "held_out.json").read_text())["step"] == 0
    assert _train(write_run(), shards, tmp_path / "out")


def test_killed_run_continues_to_the_same_weights_bit_for_bit(
    shards: Path, write_run: WriteRun, wait_for_step: WaitForStep, tmp_path: Path
) -> None:
    """A process killed at a random step, between checkpoints or while one is written, loses nothing but time."""
    run_file = write_run(schedule="steps = 160\nlog_every = 1\nmeasure_every = 60\nsave_every = 7")
    _train(run_file, shards, tmp_path / "whole", cache=tmp_path / "cache")
    killed_at = random.randrange(8, 80)
    out = tmp_path / "killed"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "llmzip_training.train",
        run_file,
        "--data",
        shards,
        "--out",
        out,
    ]
    process = subprocess.Popen(
        [*command, "--cache", tmp_path / "cache", "--device", "cpu", "--threads", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_step(out, killed_at, process.poll)
    finally:
        process.kill()
        process.wait()
    assert not (out / "held_out.json").exists()
    assert checkpoint_paths(out)
    _train(run_file, shards, out, cache=tmp_path / "cache")
    whole, resumed = (load_file(folder / "hf" / "model.safetensors") for folder in (tmp_path / "whole", out))
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), f"{name}, killed at step {killed_at}"
    losses = [[line["loss"] for line in read_metrics(f) if "loss" in line] for f in (tmp_path / "whole", out)]
    assert losses[0] == losses[1]


def test_runs_share_a_cache(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """Two runs on the same text, with the same tokenizer, have one set of token files."""
    for name in ("a", "b"):
        _train(write_run(), shards, tmp_path / name, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert not (tmp_path / "a" / "cache").exists()


def test_changed_data_do_not_continue_a_run(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """A shard that changed since the checkpoint was written is noticed."""
    _train(write_run(), shards, tmp_path / "out")
    shutil.copy(shards / "articles.txt.zst", shards / "numbers.txt.zst")
    with pytest.raises(ConfigError, match="checkpoint of another run: corpus: expected corpus-"):
        _train(write_run(), shards, tmp_path / "out")


def test_given_tokenizer_is_used_and_another_one_refused_later(
    shards: Path, write_run: WriteRun, tmp_path: Path
) -> None:
    """The tokenizer of a run is never exchanged in silence."""
    train_tokenizer(iter(["one two three"] * 9), 260).save(str(tmp_path / "mine.json"))
    train_tokenizer(iter(["four five six"] * 9), 260).save(str(tmp_path / "other.json"))
    _train(write_run(), shards, tmp_path / "out", tokenizer=tmp_path / "mine.json")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "mine.json").read_bytes()
    with pytest.raises(ConfigError, match=r"expected the content of .*other\.json, found another tokenizer"):
        _train(write_run(), shards, tmp_path / "out", tokenizer=tmp_path / "other.json")


def test_tokenizer_of_more_tokens_than_the_model_is_refused(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """Before anything is tokenised."""
    texts = iter([f"{word} " * 9 for word in dir(torch)])
    train_tokenizer(texts, 400).save(str(tmp_path / "large.json"))
    with pytest.raises(ConfigError, match="expected at most 300 tokens, found 400"):
        _train(write_run(), shards, tmp_path / "out", tokenizer=tmp_path / "large.json")


def test_refused_tokenizer_does_not_stay_in_the_folder(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """The next start, with a good one, is as the first."""
    train_tokenizer(iter(["one two three"] * 9), 260).save(str(tmp_path / "good.json"))
    (tmp_path / "bad.json").write_text('{"model": {}}')
    run = load_run(write_run())
    with pytest.raises(ConfigError, match=r"bad\.json: tokenizer: expected"):
        prepare_folder(run, Job(tmp_path, shards, tmp_path / "out", tokenizer=tmp_path / "bad.json"))
    prepare_folder(run, Job(tmp_path, shards, tmp_path / "out", tokenizer=tmp_path / "good.json"))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "good.json").read_bytes()


def test_tokenizer_is_copied_byte_for_byte(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """With whatever line ends, so that the same command finds it the same."""
    text = train_tokenizer(iter(["one two three"] * 9), 260).to_str(pretty=True)
    (tmp_path / "mine.json").write_bytes(text.replace("\n", "\r\n").encode())
    job = Job(tmp_path, shards, tmp_path / "out", tokenizer=tmp_path / "mine.json")
    for _ in range(2):
        prepare_folder(load_run(write_run()), job)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "mine.json").read_bytes()


def test_run_that_starts_from_a_model_has_its_tokenizer(shards: Path, write_run: WriteRun, tmp_path: Path) -> None:
    """Weights mean nothing for other tokens; another tokenizer is refused, and none is left behind."""
    for name in ("old", "other"):
        (tmp_path / name).mkdir()
        train_tokenizer(iter([f"{name} two three"] * 9), 260).save(str(tmp_path / name / "tokenizer.json"))
    run = replace(load_run(write_run()), start_from=StartConfig(str(tmp_path / "old")))
    job = Job(tmp_path, shards, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"expected the content of .*old/tokenizer\.json, found another"):
        prepare_folder(run, replace(job, tokenizer=tmp_path / "other" / "tokenizer.json"))
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    prepare_folder(run, job)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "old" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_device_that_is_not_there_is_refused(shards: Path, write_run: WriteRun, tmp_path: Path, device: str) -> None:
    """In one line, before the corpus is read."""
    with pytest.raises(BackendError, match=f"device {device}: expected one that torch can use") as caught:
        train_language_model(Job(write_run(), shards, tmp_path / "out", device=device))
    assert "\n" not in str(caught.value)
