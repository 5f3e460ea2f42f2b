# ruff: noqa: TID253
"""Trains one run file to a Hugging Face folder; imports torch, so it is loaded lazily as a whole.

    python -m llmzip_training.train RUN.toml --data DIR --out DIR

`--out` fills with the tokenizer, the token files, `metrics.jsonl`, `checkpoint.pt` and, at the end
of the run or at a pause, the exported model in `hf/`. The same command continues a paused run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmzip.errors import ConfigError
from llmzip_training.corpus import Corpus, load_corpus, prepare_corpus
from llmzip_training.evaluate import bits_per_byte, token_loss
from llmzip_training.export import export_model
from llmzip_training.model import Llama
from llmzip_training.optimiser import make_optimisers, rate_share, set_rates
from llmzip_training.run_file import RunConfig, load_run
from llmzip_training.tokenizer import load_tokenizer, sample_texts, train_tokenizer
from llmzip_training.windows import WindowSampler


class Trainer:
    """A run in progress: the model, its optimisers, the step and the training time so far."""

    def __init__(self, run: RunConfig, corpus: Corpus, out: Path, device: str) -> None:
        torch.manual_seed(run.schedule.seed)
        self.run = run
        self.corpus = corpus
        self.out = out
        self.device = device
        self.step = 0
        self.elapsed_s = 0.0
        self._logged_step = 0
        self.model = Llama(run.model).to(device)
        self.optimisers = make_optimisers(self.model, run.optimiser)
        tokens = torch.from_numpy(corpus.tokens.astype("int32")).to(device)
        self.sampler = WindowSampler(tokens, run.model.context, run.schedule.batch, run.schedule.seed)
        self._loss = torch.compile(token_loss) if run.schedule.compile else token_loss

    @property
    def progress(self) -> float:
        """The done share of the run, in steps or in training time as the run file says."""
        schedule = self.run.schedule
        return self.step / schedule.steps if schedule.steps else min(1.0, self.elapsed_s / schedule.seconds)

    def train(self, pause_at: float) -> bool:
        """Train until the run ends or the clock `time.monotonic()` shows `pause_at`; True at the end.

        The first step of each call compiles and is not counted as training time; nor is measuring.
        """
        schedule = self.run.schedule
        clock: float | None = None
        while self.progress < 1.0 and time.monotonic() < pause_at:
            loss = self.take_step()
            measures = self.step % schedule.measure_every == 0
            if clock is None or measures or self.step % schedule.log_every == 0:
                clock = self._log_step(loss.item(), clock)
            if measures:
                self._report({"held_out": self.measure(schedule.measure_windows)})
                self.save()
                clock = time.monotonic()
        return self.progress >= 1.0

    def take_step(self) -> torch.Tensor:
        """Learn from the batch of this step; the result is its loss in nats a token, on the device."""
        inputs, targets = self.sampler.batch(self.step)
        set_rates(self.optimisers, rate_share(self.run.optimiser, self.step, self.progress))
        loss = self._loss(self.model, inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.run.optimiser.clip_norm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        return loss.detach()

    def measure(self, n_windows: int = 0) -> dict[str, float]:
        """Bits per byte of the held-out text by shard."""
        context = self.run.model.context
        return bits_per_byte(self.model, self.corpus.held_out, context, self.device, n_windows)

    def save(self) -> None:
        """Write `checkpoint.pt`, whole or not at all."""
        state = {
            "run": asdict(self.run),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def load(self) -> None:
        """Continue from `checkpoint.pt`, if there is one.

        Raises:
            ConfigError: the checkpoint belongs to another run.
        """
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["run"] != asdict(self.run):
            raise ConfigError(f"{path}: expected a checkpoint of this run, found one of {state['run']}")
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.model.load_state_dict(state["model"])
        for optimiser, optimiser_state in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(optimiser_state)

    def _log_step(self, loss: float, clock: float | None) -> float:
        """Count the time since `clock`, report the loss and the speed, and give the new clock."""
        now = time.monotonic()
        facts: dict[str, Any] = {"loss": loss}
        if clock is not None:
            self.elapsed_s += now - clock
            n_tokens = (self.step - self._logged_step) * self.run.schedule.batch * self.run.model.context
            facts["tokens_per_s"] = round(n_tokens / (now - clock))
        self._logged_step = self.step
        self._report(facts)
        return now

    def _report(self, facts: dict[str, Any]) -> None:
        facts = {"step": self.step, "elapsed_s": round(self.elapsed_s, 1), **facts}
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")
        left_s = self.elapsed_s * (1 / self.progress - 1) if self.progress else float("nan")
        shown = {key: value["all"] if isinstance(value, dict) else value for key, value in facts.items()}
        print("  ".join(f"{key} {value:g}" for key, value in shown.items()), f" left_s {left_s:.0f}", flush=True)


def prepare_folder(run: RunConfig, data: Path, out: Path, tokenizer: Path | None) -> Corpus:
    """Fill `out` with the tokenizer and the token files, unless they are there, and load them."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists():
        if tokenizer:
            shutil.copyfile(tokenizer, out / "tokenizer.json")
        else:
            train_tokenizer(sample_texts(data), run.model.vocab_size).save(str(out / "tokenizer.json"))
    if not (out / "corpus.json").exists():
        prepare_corpus(data, load_tokenizer(out / "tokenizer.json"), out, run.schedule.seed)
    return load_corpus(out)


def main() -> None:
    """The command line."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="llmzip_training.train", description="Train one run file.")
    parser.add_argument("run", type=Path, help="run file (TOML)")
    parser.add_argument("--data", type=Path, required=True, help="folder of *.txt.zst shards")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of this run; continued if it holds a checkpoint"
    )
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to use instead of training one")
    parser.add_argument("--pause-after", type=float, default=float("inf"), help="seconds until the run pauses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    torch.set_float32_matmul_precision("high" if arguments.device == "cuda" else "highest")
    corpus = prepare_folder(run, arguments.data, arguments.out, arguments.tokenizer)
    trainer = Trainer(run, corpus, arguments.out, arguments.device)
    trainer.load()
    print(f"{len(corpus.tokens)} tokens, {trainer.sampler.n_windows} windows, from step {trainer.step}", flush=True)
    finished = trainer.train(started + arguments.pause_after)
    trainer.save()
    export_model(trainer.model, (arguments.out / "tokenizer.json").read_text(), arguments.out / "hf")
    held_out = trainer.measure() if finished else trainer.measure(run.schedule.measure_windows)
    (arguments.out / "held_out.json").write_text(json.dumps({"step": trainer.step, "bits_per_byte": held_out}) + "\n")
    print("finished" if finished else "paused", json.dumps(held_out, indent=1))


if __name__ == "__main__":
    main()
