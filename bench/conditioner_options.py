"""Options that the benchmarks of conditioners share, and what is made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench import results
from bench.arguments import positive
from bench.contenders import BUNDLED, stored_model
from llmzip.codec import Codec
from llmzip.loading import choose_windowing
from llmzip.models.artefact import load_artefact

if TYPE_CHECKING:
    from llmzip_training.steering import SteeringConfig

DEFAULT_BYTES = 50_000
DEFAULT_CHUNK = 2_000


def decimals(text: str) -> list[float]:
    """Numbers of at least 0, with commas between.

    >>> decimals("0,0.5,2")
    [0.0, 0.5, 2.0]
    """
    values = [float(part) for part in text.split(",")]
    if not all(0 <= value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"expected numbers of at least 0, found {text}")
    return values


def add_options(parser: argparse.ArgumentParser) -> None:
    """Model, sizes, training, threads and results."""
    add = parser.add_argument
    add("--model", default=BUNDLED, help="name, id or folder; default: bundled")
    add("--bytes", type=positive, default=DEFAULT_BYTES, metavar="N", help=f"of the text; default: {DEFAULT_BYTES}")
    add("--chunk", type=positive, default=DEFAULT_CHUNK, metavar="BYTES", help=f"default: {DEFAULT_CHUNK}")
    add("--window", type=positive, metavar="TOKENS", help="default: as the archiver's")
    add("--context", type=positive, default=512, metavar="TOKENS", help="of training windows; default: 512")
    add("--batch", type=positive, default=8, metavar="WINDOWS", help="in a training step; default: 8")
    add("--shift-rate", type=float, default=0.03, metavar="RATE", help="in deviations of the embedding; default: 0.03")
    add("--seed", type=int, default=0, help="of random numbers; default: 0")
    add("--threads", type=positive, default=1, metavar="N", help="of coding and training; default: 1")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")


def codec_of(chosen: argparse.Namespace) -> Codec:
    """The chosen model in the chosen windows.

    Raises:
        ModelNotFoundError: there is no such model.
        ConfigError: it allows no such windows.
    """
    artefact = load_artefact(stored_model(chosen.model).path)
    return Codec(artefact, choose_windowing(artefact.spec, chosen.window, None))


def training_of(chosen: argparse.Namespace, steps: int, n_rows: int, rate_weight: float) -> SteeringConfig:
    """How to train a prompt of so many rows, or shifts where there are none.

    Args:
        chosen: the options.
        steps: of the run.
        n_rows: of the prompt; 0 for shifts.
        rate_weight: of the conditioner's own bits.

    Raises:
        ConfigError: an option is out of range.
    """
    from llmzip_training.run_file import ScheduleConfig
    from llmzip_training.steering import SteeringConfig

    return SteeringConfig(
        schedule=ScheduleConfig(steps=steps, seed=chosen.seed),
        prefix_rows=n_rows,
        shifts=n_rows == 0,
        context=chosen.context,
        batch=chosen.batch,
        rate=chosen.prompt_rate if n_rows else chosen.shift_rate,
        rate_weight=rate_weight,
    )
