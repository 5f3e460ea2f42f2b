from __future__ import annotations

import argparse
import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench import results, tradeoff
from bench.tradeoff import Point, PointCoding, count_parameters, point_of
from llmzip.archive import compress
from llmzip.errors import ConfigError
from llmzip.exact.spec import ModelSpec, Ngrams
from llmzip.format import Method, read_frames
from llmzip.lanes import Lanes
from llmzip.models.card import CARD_FILE
from llmzip.models.store import StoredModel
from llmzip.options import CompressOptions

N_RAW = 1000


@pytest.mark.parametrize(
    "settings", [{}, {"window": 64}, {"window": 32, "overlap": 16, "chunk": 300}], ids=["usual", "window", "all"]
)
def test_payloads_are_those_of_the_program(
    settings: dict[str, Any], tiny_model: StoredModel, sample_text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model as it is, they take what `llmzip compress` gives to chunks of the same sizes by the model alone."""
    raw = sample_text[:N_RAW]
    coding = PointCoding(Point("a", str(tiny_model.path), **settings), raw, 1)
    coding.encode()
    coding.decode()
    sizes = {"chunk_size" if name == "chunk" else name: value for name, value in settings.items()}
    for name in ("compress_zstd", "compress_general"):
        monkeypatch.setattr(f"llmzip.methods.{name}", lambda raw: raw)
    archive = compress(raw, CompressOptions(model="tiny", threads=1, **sizes))
    frame = next(read_frames(io.BytesIO(archive)))
    chunks = [(place.record.method, payload) for place, payload in frame.chunks()]
    assert chunks == [(Method.MODEL, payload) for payload in coding.coding.payloads]
    assert coding.bits_per_byte == 8 * sum(map(len, coding.coding.payloads)) / len(raw)


@pytest.mark.parametrize(("cutoff", "budgets"), [(2.0, (40,)), (0.5, (4,)), (512.0, (0,))])
def test_selection_of_the_point_decides(
    cutoff: float, budgets: tuple[int, ...], selective_model: Path, sample_text: bytes
) -> None:
    """A point that has the model's own cutoff and budgets has its payloads, no other has."""
    raw = sample_text[:N_RAW]
    changed = PointCoding(Point("a", str(selective_model), cutoff=cutoff, budgets=budgets), raw, 1)
    changed.decode()
    as_it_is = PointCoding(Point("b", str(selective_model)), raw, 1)
    assert (changed.coding.payloads == as_it_is.coding.payloads) == (cutoff == 2.0)


def test_folder_needs_no_card(selective_model: Path, sample_text: bytes, tmp_path: Path) -> None:
    """A candidate is measured as soon as it is converted; its card is not among the counted bytes."""
    bare = tmp_path / "candidate"
    shutil.copytree(selective_model, bare, ignore=shutil.ignore_patterns(CARD_FILE))
    coding = PointCoding(Point("a", str(bare)), sample_text[:N_RAW], 1)
    assert coding.artefact_bytes == sum(path.stat().st_size for path in bare.iterdir())


def test_parameters_are_counted_by_their_use() -> None:
    """An embedding is a product where it is the head too, else a look-up; tables of runs and positions are look-ups."""
    spec = ModelSpec("made", 10, 6, 1, 1, 1, 6, 8, 32, 0, ngrams=Ngrams(2, 4))
    sizes = {"embed": 60, "ngram2": 12, "ngram3": 12, "layers.0.q": 36}
    matrices = {name: SimpleNamespace(q=np.zeros(size)) for name, size in sizes.items()}
    vectors = {"final_norm": np.zeros(6), "positions": np.zeros(192)}
    parameters = SimpleNamespace(matrices=matrices, vectors=vectors)

    def count(spec: ModelSpec) -> tuple[int, int]:
        return count_parameters(cast("Any", SimpleNamespace(spec=spec, parameters=parameters)))

    assert count(spec) == (96, 24)
    assert count(replace(spec, tied_head=False)) == (36, 84)
    assert count(replace(spec, learned_positions=True)) == (96, 216)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundled", "NAME=MODEL"),
        ("a=", "NAME=MODEL"),
        ("a=bundled,rows=3", "each once, found rows"),
        ("a=bundled,window=64,window=32", "each once, found window"),
        ("a=bundled,window=wide", "window: expected a value, found 'wide'"),
        ("a=bundled,budgets=1/x", "budgets: expected a value, found '1/x'"),
    ],
)
def test_point_that_means_nothing_is_refused(text: str, message: str) -> None:
    """The refusal names the part that was not understood."""
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        point_of(text)


def test_point_has_all_settings() -> None:
    """Each setting is read as what it is."""
    text = "small=/some/folder,window=256,overlap=0,chunk=9000,budgets=64/0/128,cutoff=7.5"
    assert point_of(text) == Point("small", "/some/folder", 256, 0, 9000, (64, 0, 128), 7.5)


@pytest.mark.parametrize(
    "settings",
    [{"window": 256}, {"window": 48}, {"window": 0}, {"window": 32, "overlap": 5}, {"chunk": -1}, {"cutoff": 4.0}],
    ids=str,
)
def test_setting_that_cannot_be_is_refused(
    settings: dict[str, Any], tiny_model: StoredModel, sample_text: bytes
) -> None:
    """Windows beyond the model or the format, chunks of no size, and a cutoff for plain attention are errors."""
    with pytest.raises(ConfigError, match="expected"):
        PointCoding(Point("a", str(tiny_model.path), **settings), sample_text[:N_RAW], 1)


def test_every_point_has_its_row_and_its_place(
    selective_model: Path, sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Table, results and picture hold both points."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    points = ["--point", f"whole={selective_model}", "--point", f"narrow={selective_model},window=64,budgets=8"]
    picture = tmp_path / "points.png"
    assert tradeoff.main([*_arguments(sample_text, tmp_path), *points, "--picture", str(picture)]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["metric"] for row in rows[:6]] == [
        *("parameters in products", "parameters in look-ups", "artefact", "payload", "encode", "decode")
    ]
    assert {row["case"] for row in rows} == {f"text.py, {N_RAW} bytes: {name}" for name in ("whole", "narrow")}
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["| whole", "| narrow"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("table", ["settings", "shapes"])
def test_recorded_points_are_drawn_again(table: str, tmp_path: Path, capsys: Any) -> None:
    """Without measuring anything; where one was never recorded, a line says which."""
    picture, empty = tmp_path / "points.png", tmp_path / "empty.csv"
    assert tradeoff.main(["--redraw", table, "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    empty.write_text(",".join(results.COLUMNS) + "\n", encoding="utf-8")
    assert tradeoff.main(["--redraw", table, "--picture", str(picture), "--results", str(empty)]) == 1
    assert "expected payload in bits/byte of held_out_1m.txt" in capsys.readouterr().err


def test_wrong_text_leaves_no_speed(
    selective_model: Path, sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Where decoding gives other bytes, nothing is printed or recorded, and the status is 1."""
    end = Lanes.end
    monkeypatch.setattr(Lanes, "end", lambda lanes, lane: end(lanes, lane)[::-1])
    assert tradeoff.main([*_arguments(sample_text, tmp_path), "--point", f"a={selective_model}"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "tradeoff: decode: expected the bytes of 1 chunks back, found others\n"
    assert not (tmp_path / "results.csv").exists()


def _arguments(text: bytes, folder: Path) -> list[str]:
    (folder / "text.py").write_bytes(text)
    sizes = ["--bytes", str(N_RAW), "--threads", "1"]
    return ["--text", str(folder / "text.py"), *sizes, "--results", str(folder / "results.csv")]
