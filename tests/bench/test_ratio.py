from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ratio, results
from bench.contenders import Contender
from llmzip.errors import ExactnessError

STORED = Contender("stored", bytes, lambda payload, _: payload)
WORSE = Contender("worse", lambda raw: raw + b"!", lambda payload, _: payload[:-1])
BROKEN = Contender("broken", lambda raw: raw[:-1], lambda payload, _: payload)
WITH_MODEL = Contender("with model", lambda raw: raw[:1], lambda payload, n_raw: payload * n_raw, model_size=99)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_ins() -> Iterator[tuple[Contender, ...]]:
        yield from ((WORSE, STORED), (BROKEN,), (WITH_MODEL,))

    monkeypatch.setattr(ratio, "opponents", stand_ins)
    monkeypatch.setattr(results, "commit", lambda: "abc1234")


def test_model_is_counted_only_where_asked() -> None:
    """Two figures for a model: its archive alone, and with the files of the model."""
    measured = ratio.measure(WITH_MODEL, b"aaaaaaaaaa")
    assert (measured.bits_per_byte, measured.bits_per_byte_with_model) == (0.8, 80.0)


def test_wrong_bytes_are_an_error() -> None:
    """A contender that does not give the input back is not measured."""
    with pytest.raises(ExactnessError, match="broken"):
        ratio.measure(BROKEN, b"abc")


def test_failure_is_not_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table and the results hold what came back right, in its smallest variant; the status is 1."""
    source, target = tmp_path / "input", tmp_path / "results.csv"
    source.write_bytes(b"aaaaaaaaaaaa")
    status = ratio.main([str(source), "--limit", "10", "--models", "", "--results", str(target)])
    output = capsys.readouterr()
    assert status == 1
    assert "### input[:10], 10 bytes" in output.out
    assert [line.split(" | ")[:4] for line in output.out.splitlines()[-2:]] == [
        ["| stored", "10", "8.000", ""],
        ["| with model", "1", "0.800", "80.000"],
    ]
    assert "broken" not in output.out
    assert "broken" in output.err
    cases = {row["case"] for row in csv.DictReader(target.read_text(encoding="utf-8").splitlines())}
    assert cases == {"input[:10]: stored", "input[:10]: with model"}


def test_unknown_model_ends_before_any_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is not there is said at once, not after the opponents' minutes."""
    assert ratio.main([str(tmp_path / "missing"), "--models", "no-such-model"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err.startswith("ratio: model no-such-model: expected one of")) == ("", True)
