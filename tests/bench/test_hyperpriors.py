from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import hyperpriors, published, results
from bench.published import GAUSSIAN_STEP
from bench.quantised import quantised
from llmzip.conditioning.conditioner_file import ConditionerFile
from llmzip.conditioning.conditioner_set import ConditionerSet, Text
from llmzip.errors import ExactnessError
from llmzip.models.artefact import Artefact
from llmzip.models.store import StoredModel
from llmzip_training.conditioner_files import vectors_of

PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


@pytest.fixture
def arguments(tiny_model: StoredModel, tmp_path: Path) -> list[str]:
    """Of a run that takes seconds."""
    sizes = ["--coordinates", "20000", "--levels", "4,256"]
    return ["--model", tiny_model.name, *sizes, "--results", str(tmp_path / "results.csv")]


def test_published_table_is_repeated(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours beside theirs: the same entropy as the Gaussian row at its step, and the same error as Lloyd-Max."""
    assert hyperpriors.main([*arguments, "--picture", str(tmp_path / "rates.png")]) == 0
    rows = [line[2:-2].split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[2:5]] == ["Gaussian, sigma 1", "empirical", "Lloyd-Max"]
    cases = _cases(tmp_path)
    gaussian = cases["20000 of N(0, 1): gaussian, of 0.0391 levels"]
    lloyd_max = cases["20000 of N(0, 1): lloyd-max, 256 levels"]
    assert gaussian["entropy"] == pytest.approx(published.PRIORS["gaussian"].entropy, abs=0.02)
    assert gaussian["squared error"] == pytest.approx(GAUSSIAN_STEP**2 / 12, rel=0.05)
    assert lloyd_max["squared error"] == pytest.approx(published.PRIORS["lloyd-max"].mse, rel=0.2)
    assert len(cases) == 1 + 3 * 2
    assert (tmp_path / "rates.png").read_bytes().startswith(PNG)


def test_published_figures_agree_with_each_other() -> None:
    """Totals and ratios are as printed there."""
    priors = published.PRIORS.values()
    assert [prior.total_bits for prior in priors] == [690_396, 804_596, 803_685]
    assert [round(prior.ratio, 4) for prior in priors] == [0.2107, 0.2455, 0.2453]


def test_error_that_rounding_cannot_make_is_refused() -> None:
    """A step as wide as the distribution errs less than one that is uniform within it, as does one that clips more."""
    normal = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    hyperpriors.expect_uniform_error(quantised([normal], "gaussian", step=0.25))
    with pytest.raises(ExactnessError, match="squared error near"):
        hyperpriors.expect_uniform_error(quantised([normal], "gaussian", step=8.0))


def test_coordinates_of_a_file_are_coded_too(arguments: list[str], tiny_artefact: Artefact, tmp_path: Path) -> None:
    """All groups of all its entries; of a file of strings there are none."""
    shifts = np.random.default_rng(1).normal(size=(2, 256)).astype(np.float32)
    entry = vectors_of(shifts[:0], shifts, [0.25, 0.5])
    vectors, strings = tmp_path / "one.cond", tmp_path / "text.cond"
    _write(vectors, ConditionerSet((entry, Text(np.array([5, 7], np.int32)))), tiny_artefact)
    _write(strings, ConditionerSet((Text(np.array([5, 7], np.int32)),)), tiny_artefact)
    assert hyperpriors.main([*arguments, "--conditioner", str(vectors)]) == 0
    assert _cases(tmp_path)["one.cond: empirical, 256 levels"]["squared error"] < 1e-4
    assert hyperpriors.main([*arguments, "--conditioner", str(strings)]) == 1


def test_coarser_shifts_cost_less(
    arguments: list[str], sample_text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bits of the conditioner fall as its steps grow; both pictures are drawn, and no conditioner has a row too."""
    (tmp_path / "text.py").write_bytes(sample_text[:1000])
    text = ["--text", str(tmp_path / "text.py"), "--steps", "2", "--context", "32", "--batch", "2"]
    pictures = ["--picture", str(tmp_path / "rates.png"), "--text-picture", str(tmp_path / "totals.png")]
    assert hyperpriors.main([*arguments, *text, *pictures, "--chunk", "400", "--factors", "0.5,2,16"]) == 0
    cases = _cases(tmp_path)
    side = [cases[f"text.py, 1000 bytes: shifts, {x} times the learnt steps"]["side information"] for x in (0.5, 2, 16)]
    assert side[0] > side[1] > side[2] > cases["text.py, 1000 bytes: no conditioner"]["side information"] == 0
    assert "shifts of text.py: lloyd-max, 4 levels" in cases
    assert "| no conditioner | 0 |" in capsys.readouterr().out
    for name in ("rates.png", "totals.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_factor_of_nothing_is_refused(arguments: list[str]) -> None:
    """A step of 0 is none."""
    with pytest.raises(SystemExit):
        hyperpriors.main([*arguments, "--factors", "0,1"])


def _write(path: Path, found: ConditionerSet, artefact: Artefact) -> None:
    path.write_bytes(ConditionerFile(artefact.id, found.pack(artefact.spec)).pack())


def _cases(folder: Path) -> dict[str, dict[str, float]]:
    cases: dict[str, dict[str, float]] = {}
    for row in csv.DictReader((folder / "results.csv").read_text(encoding="utf-8").splitlines()):
        cases.setdefault(row["case"], {})[row["metric"]] = float(row["value"])
    return cases
