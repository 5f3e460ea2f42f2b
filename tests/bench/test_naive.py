from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import naive, results
from bench.float_model import FloatModel
from llmzip.codec import Codec
from llmzip.errors import ExactnessError
from llmzip.exact.transformer import Segment
from llmzip.loading import load_codec
from llmzip.models.artefact import Artefact
from llmzip.options import CompressOptions
from llmzip.windows import Windowing

WINDOWING = Windowing(32, 8)


@pytest.fixture(scope="module")
def model(tiny_artefact: Artefact) -> FloatModel:
    """A float model of the tiny model's sizes."""
    return FloatModel(tiny_artefact.spec, None, 1)


def test_token_by_token_costs_what_whole_windows_cost(model: FloatModel) -> None:
    """The same contexts, so the same bits, over several windows."""
    tokens = np.arange(1, 80, dtype=np.int32) * 37 % 500 + 1
    assert naive.check(model, tokens, WINDOWING) == pytest.approx(model.cost_bits([tokens], WINDOWING), rel=1e-5)


def test_wrong_contexts_are_found_out(model: FloatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over other tokens is not what is measured."""
    whole = model.next_logits
    monkeypatch.setattr(model, "next_logits", lambda tokens: whole(tokens[:-1]))
    tokens = np.arange(1, 80, dtype=np.int32) * 37 % 500 + 1
    with pytest.raises(ExactnessError, match="bits as by whole windows"):
        naive.check(model, tokens, WINDOWING)


def test_weights_of_the_artefact_predict_what_the_exact_engine_predicts(tiny_artefact: Artefact) -> None:
    """Close, for they are the same numbers, and not equal, for the engine rounds between products."""
    windowing = Windowing(64, 16)
    tokens = np.random.default_rng(3).integers(1, 512, 50).astype(np.int32)
    exact = Codec(tiny_artefact, windowing).transformer
    begun = np.concatenate([[tiny_artefact.spec.bos_id], tokens]).astype(np.int32)
    expected = exact.logits(exact.hidden(exact.new_cache(1, len(begun)), [Segment(0, 0, begun)]))
    found = FloatModel(tiny_artefact.spec, tiny_artefact, 1)
    logits = np.stack([found.next_logits(tokens[:n]).numpy() for n in range(len(tokens) + 1)])
    error = np.sqrt(np.square(logits - expected).mean()) / expected.std()
    assert 0 < error < 0.015


def test_weights_of_the_bundled_model_cost_what_its_payload_costs() -> None:
    """Within rounding and pruning; those of another model do not."""
    codec = load_codec(CompressOptions(conditioner="none", device="cpu", threads=1))
    tokens = codec.tokenise([b"The river flows through the town, and the old bridge was built in the year 1824. " * 4])[
        0
    ]
    bits = FloatModel(codec.artefact.spec, codec.artefact, 1).cost_bits([tokens], codec.windowing)
    payload_bits = 8 * len(next(codec.encode([tokens], map)))
    naive.check_exact(bits, payload_bits)
    assert bits != payload_bits
    other = FloatModel(codec.artefact.spec, None, 1).cost_bits([tokens], codec.windowing)
    with pytest.raises(ExactnessError, match="bits of the payload"):
        naive.check_exact(other, payload_bits)


def test_yardstick_and_llmzip_are_recorded(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, sample_text: bytes
) -> None:
    """A row of time and one of speed for the float model, and for both ways of llmzip in each number of lanes."""
    del tiny_model
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    (tmp_path / "text").write_bytes(sample_text)
    sizes = ["--tokens", "40", "--lanes", "3", "--repeats", "2", "--results", str(tmp_path / "results.csv")]
    assert naive.main(["--text", str(tmp_path / "text"), "--model", "tiny", *sizes]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    cases = [row["case"].removeprefix("tiny, text, 40 tokens a chunk: ") for row in rows if row["unit"] == "ms/token"]
    assert cases == [naive.NAIVE, "encode, 1 chunks", "decode, 1 lanes", "encode, 3 chunks", "decode, 3 lanes"]
    assert {row["repeats"] for row in rows if row["unit"] != "bits/byte"} == {"2"}
    cost, payload = (float(row["value"]) for row in rows if row["unit"] == "bits/byte")
    assert cost == pytest.approx(payload, rel=0.2)


def test_text_too_short_for_the_lanes_is_refused(
    tmp_path: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    del tiny_model
    (tmp_path / "text").write_bytes(b"short")
    assert naive.main(["--text", str(tmp_path / "text"), "--model", "tiny", "--results", str(tmp_path / "r.csv")]) == 1
    assert "expected 16384 tokens for 64 lanes" in capsys.readouterr().err
