from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import published, results, steering
from bench.quantised import KINDS
from llmzip.lanes import Lanes
from llmzip.models.store import StoredModel

N_RAW = 1000


@pytest.fixture(autouse=True)
def _no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


@pytest.fixture
def arguments(tiny_model: StoredModel, sample_text: bytes, tmp_path: Path) -> list[str]:
    """Of a run that takes seconds."""
    (tmp_path / "text.py").write_bytes(sample_text)
    sizes = ["--bytes", str(N_RAW), "--chunk", "400", "--rows", "2", "--context", "32", "--batch", "2"]
    out = ["--results", str(tmp_path / "results.csv")]
    return ["--text", str(tmp_path / "text.py"), "--model", tiny_model.name, *sizes, *out]


def test_every_conditioner_has_its_row(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None, strings, a random prompt, and trained ones at each length, as rounded in each way."""
    assert steering.main([*arguments, "--steps", "1,2", "--string", "def a|b("]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [line[2:-2].split(" | ") for line in lines[2:]]
    names = [row[0] for row in rows]
    assert names[:4] == ["none, whole", "none, in chunks", "string 'This is Wikipedia html'", "string 'def a\\|b('"]
    assert [row[1] for row in rows[4:7]] == [f"{kind}, 256 levels" for kind in KINDS]
    for weight, n_rounded in ((0, 4), (1, 7)):
        for kind in ("prompt, 2 rows", "shifts"):
            for steps in (1, 2):
                assert names.count(f"{kind}, {steps} steps, weight {weight}") == n_rounded
    cases = _cases(tmp_path)
    assert len(cases) == 7 + 2 * 2 * (4 + 7)
    for figures in cases.values():
        assert figures["total"] == figures["payload"] + figures["side information"]
        assert figures["ratio"] == pytest.approx(figures["total"] / (8 * N_RAW), rel=1e-5)


def test_published_figures_stand_beside_their_like(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A trained prompt that is not rounded beside such a one, and only the longer run beside the rounded ones."""
    options = ["--steps", "1,2", "--rate-weights", "0", "--no-shifts"]
    assert steering.main([*arguments, *options]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {tuple(line[:2]): line[9] for line in lines if len(line) == 12}
    assert found["| none, in chunks", ""] == published.CHUNKS.name
    assert found["| prompt, 2 rows, 1 steps, weight 0", "gaussian, 4095 levels"] == published.TRAINED_SHORT.name
    assert found["| prompt, 2 rows, 2 steps, weight 0", "gaussian, 4095 levels"] == published.TRAINED_LONG.name
    rounded = published.ROUNDED_LONG["lloyd-max"].name
    assert found["| prompt, 2 rows, 2 steps, weight 0", "lloyd-max, 256 levels"] == rounded
    assert found["| prompt, 2 rows, 1 steps, weight 0", "lloyd-max, 256 levels"] == ""


@pytest.mark.parametrize(
    ("run", "ratio"),
    [
        (published.WHOLE, 0.1512),
        (published.CHUNKS, 0.1658),
        (published.STRING, 0.1660),
        (published.RANDOM, 0.1703),
        (published.TRAINED_SHORT, 0.1565),
        (published.TRAINED_LONG, 0.1356),
        *zip(published.ROUNDED_LONG.values(), (0.1357, 0.1372, 0.1346), strict=True),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_published_ratios_are_those_of_their_bits(run: published.Published, ratio: float) -> None:
    """As printed there, to four places."""
    assert run.ratio == pytest.approx(ratio, abs=6e-5)


def test_wrong_text_leaves_no_row(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where decoding gives other bytes, nothing is recorded, and the status is 1."""
    end = Lanes.end
    monkeypatch.setattr(Lanes, "end", lambda lanes, lane: end(lanes, lane)[::-1])
    assert steering.main(arguments) == 1
    assert capsys.readouterr().err == "steering: decode: expected the bytes of 1 chunks back, found others\n"
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize("options", [["--rows", "257"], ["--rate-weights", "-1"], ["--steps", "0"]], ids=lambda o: o[0])
def test_options_out_of_range_are_refused(options: list[str], arguments: list[str]) -> None:
    """Before anything is coded."""
    with pytest.raises(SystemExit):
        steering.main([*arguments, *options])


def _cases(folder: Path) -> dict[str, dict[str, float]]:
    cases: dict[str, dict[str, float]] = {}
    for row in csv.DictReader((folder / "results.csv").read_text(encoding="utf-8").splitlines()):
        cases.setdefault(row["case"], {})[row["metric"]] = float(row["value"])
    return cases
