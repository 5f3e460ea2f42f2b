from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmzip.errors import ConfigError
from llmzip_training.run_file import StageConfig, load_run
from llmzip_training.start import StartConfig

RUNS = Path(__file__).parents[2] / "training" / "runs"


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_run_file_of_the_repository_loads(path: Path) -> None:
    """The experiments stay runnable, and the bundled model stays below 6 million parameters in products."""
    model = load_run(path).model
    attention = 2 * model.width * (model.width + model.n_kv_heads * model.head_width)
    layer = attention + (3 if model.mlp == "gated" else 2) * model.width * model.ffn_width
    assert model.vocab_size * model.width + model.n_layers * layer < 6_000_000


def test_keys_arrive_where_they_belong(write_run: Callable[..., Path]) -> None:
    """Tables, lists of tables and tables of tables; what is left out has its default."""
    run = load_run(write_run(accumulate=2))
    assert (run.model.width, run.model.attention, run.model.rotary_base) == (16, "selective", 10000.0)
    assert (run.optimiser.kind, run.optimiser.muon_rate, run.optimiser.clip_norm) == ("muon", 0.02, 1.0)
    assert (run.schedule.steps, run.schedule.keep, run.schedule.autocast) == (8, 2, "auto")
    assert run.stages == (StageConfig(0.5, 16, 8, 0.0, 2), StageConfig(1.0, 32, 4, 0.02, 2))
    assert run.corpus.shares == {"numbers": 0.5}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[model]", "[model]\ncolour = 1", r"run file\.model: expected only .*found colour"),
        ("[optimiser]", "[optimiser]\ncolour = 1", r"run file\.optimiser: expected only .*found colour"),
        ("[schedule]", "[schedule]\ncolour = 1", r"run file\.schedule: expected only .*found colour"),
        ("until = 0.5", "until = 0.5\ncolour = 1", r"run file\.stages\[0\]: expected only .*found colour"),
        ("[corpus.shares]", "[corpus]\ncolour = 1\n[corpus.shares]", r"run file\.corpus: expected only shares"),
        ("[schedule]", "[sched]", "run file: expected only model, .*found sched"),
        ("n_layers = 2", "", r"run file\.model: expected n_layers, found nothing"),
        ("until = 1.0", "", r"run file\.stages\[1\]: expected until, found nothing"),
        ("width = 16", 'width = "16"', r"run file\.model\.width: expected an integer, found '16'"),
        ("width = 16", "width = 16.0", r"run file\.model\.width: expected an integer, found 16\.0"),
        ("adamw_rate = 0.01", 'adamw_rate = "x"', r"run file\.optimiser\.adamw_rate: expected a number"),
        ('"selective"', '"sliding"', r"run file\.model\.attention: expected one of plain, selective, found 'sliding'"),
        ("numbers = 0.5", "numbers = 2", r"corpus\.shares\.numbers: expected 0 to 1, found 2"),
        ("steps = 8", "steps = 8\nseconds = 5", "schedule: expected one of steps and seconds, found 8 and 5"),
        ("steps = 8", "", "schedule: expected one of steps and seconds, found 0 and 0"),
        ("steps = 8", "steps = -1", r"schedule\.steps: expected at least 0, found -1"),
        ("steps = 8", "steps = 8\nkeep = 0", r"schedule\.keep: expected at least 1, found 0"),
        ("seed = 3", "seed = 4294967296", r"schedule\.seed: expected at most"),
        ("steps = 8", 'steps = 8\nautocast = "fp8"', r"autocast: expected one of auto, bfloat16, none"),
        ("steps = 8", 'steps = 8\nkernels = "some"', r"kernels: expected one of auto, none"),
        ("n_heads = 2", "n_heads = 3", "divisible"),
        ("n_heads = 2", "n_heads = 0", r"model\.n_heads: expected at least 1, found 0"),
        ("width = 16", "width = -16", r"model\.width: expected at least 1, found -16"),
        ("vocab_size = 300", "vocab_size = 65537", "vocab.* to 65536.*, found 65537"),
        ("vocab_size = 300", "vocab_size = 256", "vocabulary: expected 257 to 65536 tokens, found 256"),
        ("until = 0.5", "until = 1.0", r"expected `until` to rise from above 0 to 1\.0, found \[1\.0, 1\.0\]"),
        ("until = 0.5", "until = 0.0", r"expected `until` to rise .*found \[0\.0, 1\.0\]"),
        ("until = 1.0", "until = 0.9", r"expected `until` to rise .*found \[0\.5, 0\.9\]"),
        ("context = 16", "context = 33", "expected a context of at most 32, found 33"),
        ("batch = 8", "batch = 0", "stage batch: expected at least 1, found 0"),
        ("accumulate = 1", "accumulate = 3", r"stage batch: expected a multiple of 3 .*, found 8"),
        ('attention = "selective"', "", r"expected memory_weight 0 .*plain attention, found 0\.02"),
        ("memory_weight = 0.02", 'memory_reduce = "sum"', r"memory_reduce: expected one of max, mean, found 'sum'"),
        (
            "[schedule]",
            '[start_from]\ninit = "zero"\n[schedule]',
            r"start_from\.init: expected one of normal, .*'zero'",
        ),
        ("[schedule]", "[start_from]\nfolder = 3\n[schedule]", r"start_from\.folder: expected a string, found 3"),
        ("width = 16", "width = 16\nnorm_eps = 0", r"model\.norm_eps: expected a number above 0, found 0"),
        ("width = 16", "width = 16\nngram_tables = 2", "expected ngram_rows a power of two"),
        ("[model]", "[model", "expected TOML"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value)[:24],
)
def test_mistakes_are_refused_in_one_line(write_run: Callable[..., Path], old: str, new: str, message: str) -> None:
    """The line names the file, the place, what was expected and what was found; nothing falls back in silence."""
    path = write_run()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"^{path}: .*{message}") as caught:
        load_run(path)
    assert "\n" not in str(caught.value)


def test_line_ends_of_a_run_file_do_not_matter(write_run: Callable[..., Path]) -> None:
    """A copy with those of Windows is the same run."""
    path = write_run()
    expected = load_run(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_run(path) == expected


def test_start_and_memory_penalty_arrive(write_run: Callable[..., Path]) -> None:
    """Random weights and the greatest memory are the defaults."""
    path = write_run()
    assert load_run(path).start_from == StartConfig("", "start", "ko_zero")
    assert [stage.memory_reduce for stage in load_run(path).stages] == ["max", "max"]
    path.write_text(
        path.read_text().replace("memory_weight = 0.02\n", 'memory_weight = 0.02\nmemory_reduce = "mean"\n')
        .replace("[schedule]", '[start_from]\nfolder = "old/hf"\nplace = "end"\ninit = "normal"\n[schedule]')
    )  # fmt: skip
    assert load_run(path).start_from == StartConfig("old/hf", "end", "normal")
    assert load_run(path).stages[1].memory_reduce == "mean"


def test_missing_tables_are_refused_by_name(tmp_path: Path) -> None:
    """A run file without a model is none."""
    (tmp_path / "run.toml").write_text("[schedule]\nsteps = 1\n")
    with pytest.raises(ConfigError, match="expected model, optimiser, stages, found nothing"):
        load_run(tmp_path / "run.toml")


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """As any other file that is no TOML."""
    (tmp_path / "run.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="expected TOML"):
        load_run(tmp_path / "run.toml")


def test_windows_that_cannot_be_dealt_out_are_refused() -> None:
    """Each process takes equal micro-batches."""
    stage = StageConfig(until=1.0, context=8, batch=12, accumulate=2)
    assert [stage.micro_batch(n) for n in (1, 2, 3)] == [6, 3, 2]
    with pytest.raises(ConfigError, match="multiple of 8"):
        stage.micro_batch(4)
