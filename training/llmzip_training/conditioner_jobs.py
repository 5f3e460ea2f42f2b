"""Trains what the commands `llmzip train steering`, `codebook` and `memory` ask for; imports torch, loaded lazily.

`--out` fills with `metrics.jsonl`, `checkpoints/` and, at the end, `conditioner.cond`, `codebook.cond` or
`memory.cond`, and `report.json`. The same command continues a run that was paused or killed.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from llmzip.conditioning.hyperpriors import Kind
from llmzip.conditioning.learned import Learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import read_network
from llmzip.conditioning.vectors import MAX_PREFIX
from llmzip.errors import ConfigError
from llmzip.tokens.tokenizer import ByteTokenizer
from llmzip_training import codebook, memory, steering
from llmzip_training.codebook import CodebookTrainer
from llmzip_training.codebook_config import CodebookConfig
from llmzip_training.conditioner_files import counted, write_codebook, write_conditioner, write_memory, write_text
from llmzip_training.conditioner_run import ConditionerRun
from llmzip_training.config import expect_one_of
from llmzip_training.job import Job, load_named
from llmzip_training.memory import MemoryConfig, MemoryTrainer
from llmzip_training.steering import SteeringConfig, SteeringTrainer


def train_steering(
    job: Job, config: SteeringConfig, steps: int | None, kind: str = "gaussian", network: Path | None = None
) -> bool:
    """Train a conditioner, until the end or a pause; True at the end.

    Args:
        job: where and on what.
        config: how; its schedule's length counts only if it is by seconds.
        steps: how many, unless by seconds; `None` for as many as suit the text.
        kind: the hyperprior that the result is coded under.
        network: file of the learned one.

    Raises:
        LlmzipError: model, text, checkpoint or configuration are not as they should be, or a loss is not finite.
    """
    pause_at = time.monotonic() + job.pause_after_s
    hyperprior = _hyperprior(kind, network, config)
    artefact, model = job.load_model()
    if isinstance(hyperprior, HyperpriorNetwork):
        hyperprior.check(artefact.id, artefact.spec.n_layers + 1, artefact.spec.width)
    text, held_out = job.load_texts(artefact)
    config = steering.fitted(config, text, model)
    if not config.schedule.seconds:
        default = steering.SHARED_STEPS if held_out else steering.default_steps(text.n_tokens, config)
        config = replace(config, schedule=replace(config.schedule, steps=steps or default))
    trainer = SteeringTrainer(model, artefact.id, config, text, job.out, held_out)
    if finished := _train(trainer, pause_at):
        trained = counted(trainer.result(), hyperprior)
        n_bytes = write_conditioner(trained, artefact, job.out / "conditioner.cond", hyperprior)
        job.write_report(trained.report | {"set_bytes": n_bytes})
    return finished


def write_string(text: str, model: str | None, out: Path) -> int:
    """Write a fixed string as a conditioner; the bytes that an archive holds of it.

    Args:
        text: as it would stand before every window.
        model: name, id or folder; `None` for the bundled one.
        out: the file.

    Raises:
        ConfigError: it has no token, or more than 256.
    """
    artefact = load_named(model)
    tokens = ByteTokenizer(artefact.tokenizer_json, artefact.vocabulary).encode(text.encode())
    if not 1 <= len(tokens) <= MAX_PREFIX:
        raise ConfigError(f"string: expected 1 to {MAX_PREFIX} tokens, found {len(tokens)}")
    return write_text(tokens, artefact, out, {"string": text})


def train_codebook(job: Job, config: CodebookConfig) -> bool:
    """Train a codebook, until the end or a pause; True at the end.

    Raises:
        LlmzipError: as `train_steering`; and where there is no held-out text.
    """
    pause_at = time.monotonic() + job.pause_after_s
    artefact, model = job.load_model()
    text, held_out = job.load_shared_texts(artefact, "codebook")
    trainer = CodebookTrainer(model, artefact.id, codebook.fitted(config, model), text, held_out, job.out)
    if finished := _train(trainer, pause_at):
        trained = trainer.result()
        write_codebook(trained, artefact, job.out / "codebook.cond")
        job.write_report(trained.report)
    return finished


def train_memory(job: Job, config: MemoryConfig) -> bool:
    """Train directions that chunks combine, until the end or a pause; True at the end.

    Raises:
        LlmzipError: as `train_codebook`.
    """
    pause_at = time.monotonic() + job.pause_after_s
    artefact, model = job.load_model()
    text, held_out = job.load_shared_texts(artefact, "memory")
    trainer = MemoryTrainer(model, artefact.id, memory.fitted(config, model), text, held_out, job.out)
    if finished := _train(trainer, pause_at):
        trained = trainer.result()
        n_bytes = write_memory(trained, artefact, job.out / "memory.cond")
        job.write_report(trained.report | {"set_bytes": n_bytes})
    return finished


def _hyperprior(kind: str, network: Path | None, config: SteeringConfig) -> Kind | HyperpriorNetwork:
    expect_one_of("hyperprior", kind, (*get_args(Kind), Learned.name))
    if kind != Learned.name:
        if network is not None:
            raise ConfigError(f"hyperprior {kind}: expected no --network, found {network}")
        return cast(Kind, kind)
    if network is None or config.prefix_rows:
        found = "none" if network is None else f"also a prompt of {config.prefix_rows} rows"
        raise ConfigError(f"hyperprior {kind}: expected --network for steering rows alone, found {found}")
    return read_network(network)


def _train(trainer: ConditionerRun, pause_at: float) -> bool:
    finished = trainer.train(pause_at)
    print(f"{'finished' if finished else 'paused'} at step {trainer.step}", flush=True)
    return finished
