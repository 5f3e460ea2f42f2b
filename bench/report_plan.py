"""What `bench.report` runs: a command for each part, with sizes that fit its time on two cores.

The first model is the one that all files go through. Others are larger and slower: they get the beginnings of a few
texts, the published experiment, and the yardstick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.contenders import BUNDLED


class Sizes(NamedTuple):
    """How much each part measures.

    Attributes:
        files, whole, models: options of `bench.compare` for all files, for one long text, for further models.
        published: options of `bench.published_runs`.
        yardstick, model_yardstick: options of `bench.naive`, for the first model and for further ones.
        growth: options of `bench.growth`.
    """

    files: str
    whole: str
    models: str
    published: str
    yardstick: str
    model_yardstick: str
    growth: str


# Some 25 minutes on two cores of a server, a third of them for a model of 135 million parameters.
FULL = Sizes(
    files="--limit 20000 --repeats 2",
    whole="--limit 1000000 --repeats 2 --against zstd-22 --against xz --against brotli --against ppmd",
    models="--limit 6000 --repeats 2 --against zstd-22 --against xz --against ppmd",
    published="--bytes 50000 --chunk 2000",
    yardstick="--tokens 256 --lanes 1,8,64 --repeats 3",
    model_yardstick="--tokens 64 --lanes 1,8 --repeats 2",
    growth="--bytes 65536 --sizes 65536,131072,262144,524288 --chunks 4096,16384,65536 --lanes 1,8,64 "
    "--windows 256,512,1024 --workers 0,1,2 --repeats 2",
)
# Nothing that these say of speed means anything.
QUICK = Sizes(
    files="--limit 600 --repeats 1 --against zlib",
    whole="",
    models="--limit 300 --repeats 1 --against zlib",
    published="--bytes 600 --chunk 200",
    yardstick="--tokens 20 --lanes 1 --repeats 2",
    model_yardstick="--tokens 10 --lanes 1 --repeats 1",
    growth="--bytes 600 --sizes 300 --chunks= --lanes= --windows= --workers= --repeats 1",
)
# Texts of unlike kinds; those that are there go through the larger models.
_MODEL_TEXTS = ("enwik8_1m", "alice29.txt", "structlog_dev.py")


class Planned(NamedTuple):
    """A part that is to run.

    Attributes:
        name: what it measures.
        module: of the benchmark.
        arguments: of its command.
    """

    name: str
    module: str
    arguments: tuple[str, ...]


def plan(folder: Path, text: Path, models: Sequence[str], published: Sequence[str], sizes: Sizes) -> Iterator[Planned]:
    """All parts, those first whose loss would be the greatest.

    Args:
        folder: whose files are compressed.
        text: what models are compared on.
        models: the first one for all files.
        published: those of the published experiment.
        sizes: how much of everything.
    """
    first, *others = models
    yield _compare("all files", [folder], first, sizes.files)
    own = ("--text", str(text), "--models", ",".join(published))
    yield Planned("published tables", "bench.published_runs", (*own, *sizes.published.split()))
    yield _of_model("yardstick", "bench.naive", text, first, sizes.yardstick)
    yield _of_model("growth", "bench.growth", text, first, sizes.growth)
    texts = [path for name in _MODEL_TEXTS if (path := folder / name).is_file()] or [text]
    for model in others:
        yield _compare(f"texts, {model}", texts, model, sizes.models)
        yield _of_model(f"yardstick, {model}", "bench.naive", text, model, sizes.model_yardstick)
    if sizes.whole:
        yield _compare("a long text", [text], first, sizes.whole)


def _compare(name: str, paths: Sequence[Path], model: str, options: str) -> Planned:
    arguments = (*map(str, paths), "--models", model, *options.split())
    return Planned(name, "bench.compare", arguments)


def _of_model(name: str, module: str, text: Path, model: str, options: str) -> Planned:
    chosen = () if model == BUNDLED else ("--model", model)
    return Planned(name, module, ("--text", str(text), *chosen, *options.split()))
