"""Loss against the budget of pruned attention; imports torch, so it is loaded lazily as a whole.

    python -m llmzip_training.budget_curve MODEL --data DIR --out DIR [--control MODEL]

writes `budget_curve.csv` and `budget_curve.png`: for ratios r of the window's length, budgets of max(1, r T) tokens
in all layers, and each mode of `Pruning`. Pruning by recency is the control, and so is an unselective model, given by
`--control`, which can be pruned in no other way. `--allowed-rise` also looks for budgets of single layers and writes
`allocation.csv`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from llmzip.errors import ConfigError
from llmzip_training.held_out import HeldOutWindows, bits_per_byte, cut_windows, held_out_documents, nats_per_token
from llmzip_training.load import find_tokenizer, load_model
from llmzip_training.model import LanguageModel
from llmzip_training.pruning import Mode, PrunedModel, Pruning
from llmzip_training.tokenizer import load_tokenizer

ALLOCATION_STEP = 8


class CurvePoint(NamedTuple):
    """What one budget costs.

    Attributes:
        model: name of the model.
        mode: of `Pruning`.
        ratio: of the window's length.
        budget: the most tokens that a query sees.
        nats_per_token: cross-entropy.
        bits_per_byte: the same in bits per byte of the text.
    """

    model: str
    mode: Mode
    ratio: float
    budget: int
    nats_per_token: float
    bits_per_byte: float


class AllocationStep(NamedTuple):
    """The budgets after a step of `allocate_budgets`, and their loss in nats a token."""

    budgets: tuple[int, ...]
    loss: float


def modes_of(model: LanguageModel) -> tuple[Mode, ...]:
    """How a model can be pruned."""
    return ("recompute", "evict", "recency") if model.config.attention == "selective" else ("recency",)


def measure_curve(name: str, model: LanguageModel, windows: HeldOutWindows, n_ratios: int) -> Iterator[CurvePoint]:
    """Measure a model in its modes at the ratios 1 / n, 2 / n, ... 1."""
    length = windows.targets.shape[1]
    for mode in modes_of(model):
        for i in range(1, n_ratios + 1):
            budget = max(1, length * i // n_ratios)
            nats = nats_per_token(PrunedModel(model, Pruning((budget,) * model.config.n_layers, mode)), windows)
            yield CurvePoint(name, mode, i / n_ratios, budget, nats, bits_per_byte(nats, windows))


def allocate_budgets(
    loss_of: Callable[[tuple[int, ...]], float], start: tuple[int, ...], bound: float, step: int = ALLOCATION_STEP
) -> Iterator[AllocationStep]:
    """Lower budgets greedily: again and again by `step` in the layer where that raises the loss least.

    Source: Leviathan, Kalman and Matias, arXiv:2410.02703, whose steps are of 8 tokens too.

    Args:
        loss_of: the loss of given budgets.
        start: budgets to begin with; no layer gets below 1.
        bound: the loss must not get above it.
        step: tokens.

    Yields:
        The start, then each step; the last one is the result. Nothing where the start is above the bound.
    """
    best = AllocationStep(start, loss_of(start))
    while best.loss <= bound:
        yield best
        candidates = [_lowered(best.budgets, i, step) for i, budget in enumerate(best.budgets) if budget > step]
        if not candidates:
            return
        best = min((AllocationStep(budgets, loss_of(budgets)) for budgets in candidates), key=lambda one: one.loss)


def _lowered(budgets: tuple[int, ...], layer: int, step: int) -> tuple[int, ...]:
    return (*budgets[:layer], budgets[layer] - step, *budgets[layer + 1 :])


def evicted_loss(model: LanguageModel, windows: HeldOutWindows) -> Callable[[tuple[int, ...]], float]:
    """The loss of a selective model that evicts, as a function of its budgets."""
    return lambda budgets: nats_per_token(PrunedModel(model, Pruning(budgets)), windows)


def write_table(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def draw_curve(points: list[CurvePoint], path: Path) -> None:
    """Draw bits per byte against the ratio, a line for each model and mode."""
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 4.5), layout="constrained")).subplots()
    for model, mode in dict.fromkeys((point.model, point.mode) for point in points):
        line = [point for point in points if (point.model, point.mode) == (model, mode)]
        x, y = [point.ratio for point in line], [point.bits_per_byte for point in line]
        axes.plot(x, y, marker="o", markersize=3, label=f"{model}, {mode}")
    axes.set(xlabel="tokens that a query may see, as a share of the window", ylabel="bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def run_curve(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    names = {"model": arguments.model} | ({"control": arguments.control} if arguments.control else {})
    points: list[CurvePoint] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        model = load_model(path)
        windows = read_windows(path, model, arguments)
        for point in measure_curve(name, model, windows, arguments.ratios):
            points.append(point)
            print(f"{point.model}  {point.mode:9}  budget {point.budget:5}  {point.bits_per_byte:.4f} bits per byte")
            write_table(arguments.out / "budget_curve.csv", CurvePoint._fields, points)
    draw_curve(points, arguments.out / "budget_curve.png")
    if arguments.allowed_rise is not None:
        run_allocation(arguments)


def run_allocation(arguments: argparse.Namespace) -> None:
    """Look for budgets whose loss is at most so much above that of the unpruned model."""
    model = load_model(arguments.model)
    if model.config.attention != "selective":
        raise ConfigError(f"{arguments.model}: expected a selective model for --allowed-rise, found a plain one")
    windows = read_windows(arguments.model, model, arguments)
    start = (arguments.allocation_start or windows.targets.shape[1],) * model.config.n_layers
    bound = nats_per_token(model, windows) + arguments.allowed_rise
    steps: list[AllocationStep] = []
    for one in allocate_budgets(evicted_loss(model, windows), start, bound, arguments.allocation_step):
        steps.append(one)
        print(f"budgets {' '.join(map(str, one.budgets))}  {one.loss:.4f} nats a token")
        header = (*(f"layer_{i}" for i in range(len(start))), "nats_per_token")
        write_table(arguments.out / "allocation.csv", header, [(*step.budgets, step.loss) for step in steps])


def read_windows(path: Path, model: LanguageModel, arguments: argparse.Namespace) -> HeldOutWindows:
    """The windows to measure a model on, by its own tokenizer."""
    documents = (
        held_out_documents(arguments.data)
        if arguments.data
        else [file.read_bytes().decode(errors="replace") for file in arguments.held_out]
    )
    context = arguments.context or model.config.context
    return cut_windows(documents, load_tokenizer(find_tokenizer(path)), context, arguments.windows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="llmzip_training.budget_curve", description="Loss against cache budget.")
    parser.add_argument("model", type=Path, help="exported model, folder of a run, or checkpoint")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--data", type=Path, help="folder of *.txt.zst shards, whose held-out documents are used")
    texts.add_argument("--held-out", type=Path, nargs="+", help="text files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--control", type=Path, help="a plain model, to be pruned by recency")
    parser.add_argument("--context", type=int, default=0, help="length of a window; that of the model by default")
    parser.add_argument("--windows", type=int, default=64, help="windows to measure on, 0 for all")
    parser.add_argument("--ratios", type=int, default=20, help="points of the curve")
    parser.add_argument("--allowed-rise", type=float, help="nats a token: also allocate budgets to layers")
    parser.add_argument("--allocation-start", type=int, default=0, help="budget of all layers; the window by default")
    parser.add_argument("--allocation-step", type=int, default=ALLOCATION_STEP, help="tokens")
    run_curve(parser.parse_args())


if __name__ == "__main__":
    main()
