"""Loss against the budget of pruned attention; imports torch, so it is loaded lazily as a whole.

    llmzip train budget-curve MODEL --data DIR --out DIR [--control MODEL]

or `python -m llmzip_training.budget_curve` with the same arguments, writes `budget_curve.csv` and `budget_curve.png`:
for ratios r of the window's length, budgets of max(1, r T) tokens in all layers, and each mode of `Pruning`. Pruning by
recency is the control, and so is an unselective model, given by `--control`, which can be pruned in no other way.
`--allowed-rise` also looks for budgets of single layers and writes `allocation.csv`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llmzip.errors import ConfigError, FileError
from llmzip_training.held_out import HeldOutWindows, cut_windows, held_out_documents, nats_per_token
from llmzip_training.load import find_tokenizer, load_model
from llmzip_training.model import LanguageModel
from llmzip_training.pruning import Mode, PrunedModel, Pruning
from llmzip_training.tokenizer import load_tokenizer

ALLOCATION_STEP = 8


@dataclass(frozen=True)
class CurveJob:
    """What is measured, and on what.

    Attributes:
        model: exported model, folder of a run, or checkpoint.
        out: folder of the results.
        data: folder of shards, whose held-out documents are measured; or else
        held_out: text files in UTF-8.
        control: a plain model, pruned by recency.
        context: tokens in a window, 0 for those of the model.
        windows: how many, at equal distances; 0 for all.
        ratios: points of the curve.
        allowed_rise: nats a token; also look for budgets of single layers that cost no more.
        allocation_start: budget of all layers to begin with, 0 for the window.
        allocation_step: tokens.
    """

    model: Path
    out: Path
    data: Path | None = None
    held_out: tuple[Path, ...] = ()
    control: Path | None = None
    context: int = 0
    windows: int = 64
    ratios: int = 20
    allowed_rise: float | None = None
    allocation_start: int = 0
    allocation_step: int = ALLOCATION_STEP

    def __post_init__(self) -> None:
        """Refuse no text, and text from two places."""
        if bool(self.data) == bool(self.held_out):
            raise ConfigError("budget curve: expected one of --data and --held-out, found both or none")


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
            yield CurvePoint(name, mode, i / n_ratios, budget, nats, windows.bits_per_byte(nats))


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


def run_curve(job: CurveJob) -> None:
    """Measure the curve of a model and its control, and write it after each point.

    Raises:
        LlmzipError: a model or a text is not as it should be.
    """
    names = {"model": job.model} | ({"control": job.control} if job.control else {})
    points: list[CurvePoint] = []
    job.out.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        model = load_model(path)
        windows = read_windows(path, model, job)
        for point in measure_curve(name, model, windows, job.ratios):
            points.append(point)
            print(f"{point.model}  {point.mode:9}  budget {point.budget:5}  {point.bits_per_byte:.4f} bits per byte")
            write_table(job.out / "budget_curve.csv", CurvePoint._fields, points)
    draw_curve(points, job.out / "budget_curve.png")
    if job.allowed_rise is not None:
        run_allocation(job, job.allowed_rise)


def run_allocation(job: CurveJob, allowed_rise: float) -> None:
    """Look for budgets whose loss is at most so much above that of the unpruned model, in nats a token."""
    model = load_model(job.model)
    if model.config.attention != "selective":
        raise ConfigError(f"{job.model}: expected a selective model for --allowed-rise, found a plain one")
    windows = read_windows(job.model, model, job)
    start = (job.allocation_start or windows.targets.shape[1],) * model.config.n_layers
    bound = nats_per_token(model, windows) + allowed_rise
    steps: list[AllocationStep] = []
    for one in allocate_budgets(evicted_loss(model, windows), start, bound, job.allocation_step):
        steps.append(one)
        print(f"budgets {' '.join(map(str, one.budgets))}  {one.loss:.4f} nats a token")
        header = (*(f"layer_{i}" for i in range(len(start))), "nats_per_token")
        write_table(job.out / "allocation.csv", header, [(*step.budgets, step.loss) for step in steps])


def read_windows(path: Path, model: LanguageModel, job: CurveJob) -> HeldOutWindows:
    """The windows to measure a model on, by its own tokenizer.

    Raises:
        ConfigError: they are longer than the model's context.
        FileError: a text is not UTF-8.
    """
    context = job.context or model.config.context
    if context > model.config.context:
        raise ConfigError(f"{path}: expected windows of at most {model.config.context} tokens, found {context}")
    documents = held_out_documents(job.data) if job.data else [read_text(file) for file in job.held_out]
    return cut_windows(documents, load_tokenizer(find_tokenizer(path)), context, job.windows)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, as it is."""
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"held-out text: expected UTF-8, found byte 0x{content[error.start]:02x} at offset {error.start}"
        raise FileError(message, path=str(path)) from error


def main() -> None:
    """Run `llmzip train budget-curve` with the arguments of this process."""
    from llmzip.cli import main as llmzip

    sys.argv = ["llmzip", "train", "budget-curve", *sys.argv[1:]]
    llmzip()


if __name__ == "__main__":
    main()
