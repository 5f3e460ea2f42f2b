from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import growth, results
from bench.growth import WAYS, Fit, Point, Series, fits_of
from bench.growth_picture import draw
from llmzip.errors import ExactnessError


def _series(seconds: float, megabytes: float) -> Series:
    series = Series()
    for way in WAYS:
        series.seconds[way] = [seconds + 1, seconds, seconds - 1]
        series.megabytes[way] = [megabytes - 5, megabytes]
    return series


@given(
    st.lists(st.integers(0, 10**6), min_size=3, max_size=9, unique=True), st.integers(-50, 50), st.integers(-1000, 1000)
)
def test_fit_finds_a_line(xs: list[int], slope: int, intercept: int) -> None:
    """Points of a line give that line, and it explains all."""
    fit = Fit.through(xs, [slope * x + intercept for x in xs])
    assert fit.slope == pytest.approx(slope, abs=1e-6)
    assert fit.intercept == pytest.approx(intercept, abs=1e-2)
    assert fit.determination == pytest.approx(1, abs=1e-6)


def test_what_is_no_line_is_explained_less() -> None:
    """Points that go up and down again: the line explains nothing of them."""
    assert Fit.through([0, 1, 2], [0, 1, 0]).determination == pytest.approx(0, abs=1e-12)


def test_fits_are_of_medians_and_of_the_most_memory() -> None:
    """Both ways of each axis with three points; through two any line would go."""
    found = {Point("size", n): _series(2 * n + 3, 100) for n in (1, 2, 4)}
    found |= {Point("lanes", n): _series(n, n) for n in (1, 8)}
    fits = dict(fits_of(found))
    assert set(fits) == {f"size: {way}, {unit}" for way in WAYS for unit in ("s", "MB")}
    assert fits["size: compress, s"] == Fit(2.0, 3.0, 1.0)
    assert fits["size: decompress, MB"] == Fit(0.0, 100.0, 1.0)


def test_picture_is_drawn(tmp_path: Path) -> None:
    """A file that is a picture, for any number of axes."""
    draw(
        {("size", 1): _series(1, 2), ("size", 2): _series(2, 3), ("lanes", 1): _series(3, 4)}, WAYS, tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_points_are_measured_and_recorded(
    tmp_path: Path, tiny_model: object, monkeypatch: pytest.MonkeyPatch, sample_text: bytes
) -> None:
    """Each axis by its option, every archive decoded and compared; figures of all points and fits of the sizes."""
    del tiny_model
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    (tmp_path / "text").write_bytes(sample_text)
    axes = ["--sizes", "1000,2000,4000", "--chunks", "512", "--lanes", "2", "--windows", "64", "--workers", "1"]
    sizes = ["--bytes", "2000", "--repeats", "1", "--results", str(tmp_path / "results.csv")]
    assert growth.main(["--text", str(tmp_path / "text"), "--model", "tiny", *axes, *sizes]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    prefix = "tiny, text, 2000 bytes: "
    points = {row["case"].removeprefix(prefix) for row in rows if row["unit"] == "s"}
    assert points == {"size 1000", "size 2000", "size 4000", "chunk size 512", "lanes 2", "window 64", "workers 1"}
    assert {row["case"].removeprefix(prefix) for row in rows if row["metric"] == "slope"} == {
        f"fit of size: {way}, {unit}" for way in WAYS for unit in ("s", "MB")
    }
    assert all(float(row["value"]) > 20 for row in rows if row["metric"] == "memory")


def test_program_that_fails_is_an_error(tmp_path: Path) -> None:
    """With its own words, and nothing of it is measured."""
    runner = growth.Runner(b"text", "no-such-model", 4, tmp_path)
    series = Series()
    with pytest.raises(ExactnessError, match=r"compress: expected exit status 0, found 21: .*no-such-model"):
        runner.run(Point("size", 4), series)
    assert not any(series.seconds.values())
