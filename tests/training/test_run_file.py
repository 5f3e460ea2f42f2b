from __future__ import annotations

from pathlib import Path

import pytest

from llmzip.errors import ConfigError
from llmzip_training.run_file import load_run

RUNS = Path(__file__).parents[2] / "training" / "runs"


def _edited(tmp_path: Path, old: str, new: str) -> Path:
    path = tmp_path / "run.toml"
    text = (RUNS / "bundled_gpu.toml").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_run_file_of_the_repository_loads(path: Path) -> None:
    """The experiments stay runnable, and the bundled model stays below 6 million parameters."""
    model = load_run(path).model
    attention = 2 * model.width * (model.width + model.n_kv_heads * model.head_width)
    layer = attention + 3 * model.width * model.ffn_width
    assert model.vocab_size * model.width + model.n_layers * layer < 6_000_000


@pytest.mark.parametrize("table", ["[model]", "[optimiser]", "[schedule]"])
def test_unknown_key_is_refused_by_name(tmp_path: Path, table: str) -> None:
    """A misspelt key never falls back to a default in silence."""
    with pytest.raises(ConfigError, match="found colour"):
        load_run(_edited(tmp_path, table, f"{table}\ncolour = 1"))


def test_unknown_table_is_refused_by_name(tmp_path: Path) -> None:
    """A misspelt table is refused as well."""
    with pytest.raises(ConfigError, match="sched"):
        load_run(_edited(tmp_path, "[schedule]", "[sched]"))


def test_missing_key_is_refused_by_name(tmp_path: Path) -> None:
    """What has no default has to be given."""
    with pytest.raises(ConfigError, match="n_layers"):
        load_run(_edited(tmp_path, "n_layers = 6", ""))


def test_missing_table_is_refused_by_name(tmp_path: Path) -> None:
    """A run file without a model is none."""
    path = tmp_path / "run.toml"
    path.write_text("[schedule]\nbatch = 1\nsteps = 1\n")
    with pytest.raises(ConfigError, match="model, optimiser"):
        load_run(path)


def test_two_ends_are_refused(tmp_path: Path) -> None:
    """A run ends by steps or by time, not by both."""
    with pytest.raises(ConfigError, match="one of steps and seconds"):
        load_run(_edited(tmp_path, "[schedule]", "[schedule]\nsteps = 5"))


def test_shape_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    """Heads that do not divide the width are a mistake in the file, found before training."""
    with pytest.raises(ConfigError, match="divisible"):
        load_run(_edited(tmp_path, "n_heads = 4", "n_heads = 5"))
