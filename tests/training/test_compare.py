from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest
import zstandard

from llmzip_training.compare import RATIOS, CompareJob, Result, compare, format_table
from llmzip_training.load import load_model


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a comparison of two seeds at toy size writes."""
    folder = tmp_path_factory.mktemp("compare")
    text = "\0".join(f"document {i}: {i * i} and {i * 7 % 11} and so on\n" * 3 for i in range(120))
    for name in ("a", "b"):
        (folder / f"{name}.txt.zst").write_bytes(zstandard.compress(text.encode()))
    compare(
        CompareJob(
            folder, folder / "out", seeds=2, steps=6, batch=2, context=20, n_bytes=6000, vocab_size=270, width=16,
            layers=2, heads=2, memory_weight=0.01,
        )
    )  # fmt: skip
    return folder / "out"


def read_rows(out: Path) -> list[dict[str, str]]:
    """The rows of the results."""
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_both_kinds_have_equal_parameters(out: Path) -> None:
    """Selection has none of its own, and the count is that of the shapes."""
    # Embedding, per layer four projections, two of the MLP and two norms, and the last norm.
    expected = 270 * 16 + 2 * (4 * 16 * 16 + 2 * 16 * 64 + 2 * 16) + 16
    assert {row["n_parameters"] for row in read_rows(out)} == {str(expected)}
    for name in ("selective-0", "plain-1"):
        model = load_model(out / name)
        assert model.config.attention == name.split("-")[0]
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_every_run_is_measured_at_every_budget(out: Path) -> None:
    """Selective models evict, plain ones keep the latest."""
    rows = read_rows(out)
    found = [(row["seed"], row["attention"], row["mode"], row["budget"]) for row in rows]
    assert found == [
        (seed, attention, mode, str(max(1, int(20 * ratio))))
        for seed in ("0", "1")
        for attention, mode in (("selective", "evict"), ("plain", "recency"))
        for ratio in RATIOS
    ]
    assert len({row["nats_per_token"] for row in rows}) > len(rows) / 2


def test_table_has_mean_and_standard_deviation_of_the_seeds(out: Path) -> None:
    """Recomputed from the results, for all that both kinds saw."""
    table = (out / "table.md").read_text()
    for attention in ("selective", "plain"):
        values = [
            float(row["nats_per_token"])
            for row in read_rows(out)
            if (row["attention"], row["ratio"]) == (attention, "1.0")
        ]
        assert f"{sum(values) / 2:.4f} ± {statistics.stdev(values):.4f}" in table
    assert len(table.splitlines()) == 5 + len(RATIOS)


def test_table_equals_one_by_hand() -> None:
    """Means 2 and 4, deviations the square root of 2 and of 8."""
    results = [
        Result(attention, seed, 7, "evict", 0.5, 10, factor * (1 + 2 * seed), factor)
        for attention, factor in (("selective", 1.0), ("plain", 2.0))
        for seed in (0, 1)
    ]
    line = "| 10 (50%) | 2.0000 ± 1.4142 | 4.0000 ± 2.8284 | 1.0000 ± 0.0000 | 2.0000 ± 0.0000 |"
    assert format_table(results).splitlines()[-1] == line
