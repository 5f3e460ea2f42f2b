from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import engine, results
from bench.workload import ENCODE, FLOAT, FLOOR, TOKENISE, Case, decode_name, encode_name
from llmzip.exact.spec import ModelSpec
from llmzip.lanes import LaneDecoder
from llmzip.models.artefact import load_artefact
from llmzip.models.card import Card
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import build_artefact

SPEC = ModelSpec(
    family="llama",
    vocab_size=257,
    width=16,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_width=8,
    ff_width=24,
    max_positions=32,
    bos_id=0,
    rotary_width=8,
)
_PARTS = ("attention_norm", "q", "k", "v", "o", "mlp_norm", "gate", "up", "down")
SECONDS = {
    FLOAT: [9.0, 4.0, 4.0],
    FLOOR: [1.0],
    ENCODE: [2.0, 2.0, 9.0],
    TOKENISE: [0.5],
    encode_name(8): [1.0],
    decode_name(8): [4.0],
}


@pytest.fixture(scope="module")
def tiny_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact of a tiny Llama with random weights, whose tokens are single bytes."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    folder = tmp_path_factory.mktemp("artefact")
    names = ["embed", "final_norm", *(f"layers.{i}.{part}" for i in range(SPEC.n_layers) for part in _PARTS)]
    random = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": random.standard_normal(tensor_shape(SPEC, f"{name}.weight"), dtype=np.float32)
        for name in names
    }
    alphabet = {"<end>": 0} | {character: i for i, character in enumerate(sorted(ByteLevel.alphabet()), start=1)}
    tokenizer = Tokenizer(BPE(alphabet, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    identity = build_artefact(FloatModel(SPEC, tensors, tokenizer.to_str(), "none", "test"), folder)
    Card(identity, "tiny", SPEC.family, "none", "test", 1, 1).write(folder)
    assert load_artefact(folder).id == identity
    return folder


def test_ratios_are_of_medians() -> None:
    """Speeds are compared as speeds and times as times, by the middle repetition."""
    found = {figure.case: figure.value for figure in engine.ratios(SECONDS, [8])}
    assert list(found.values()) == [2.0, 2.0, 0.2, 0.25]


def test_speeds_are_those_of_the_median() -> None:
    """100 tokens of 4 bytes in half a second are 5 ms each, 200 tokens/s and 0.8 KB/s."""
    case = Case("encode", n_tokens=100, n_raw=400, run=int)
    figures = list(engine.speeds([case], {"encode": [0.5, 0.4, 9.0]}))
    assert [(figure.value, figure.unit) for figure in figures] == [(5, "ms/token"), (200, "tokens/s"), (0.8, "KB/s")]


def test_engine_measures_every_case(tiny_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a tiny model ends well and leaves a row for each case, ratio and product."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    target = tmp_path / "results.csv"
    assert engine.main(_arguments(tiny_artefact, target)) == 0
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    cases = {row["case"].partition(": ")[2] for row in rows}
    expected = {FLOAT, FLOOR, ENCODE, TOKENISE, "encode, blocks of 8 rows", encode_name(2), decode_name(2), "payload"}
    assert expected <= cases
    assert {row["unit"] for row in rows} == {"ms/token", "tokens/s", "KB/s", "", "bits/byte", "Gop/s"}


def test_wrong_text_leaves_no_speed(
    tiny_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where decoding gives other bytes, nothing is printed or recorded, and the status is 1."""
    submit = LaneDecoder.submit
    monkeypatch.setattr(LaneDecoder, "submit", lambda decoder, payload, n_raw: submit(decoder, payload, n_raw - 1))
    assert engine.main(_arguments(tiny_artefact, tmp_path / "results.csv")) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "engine: decode: expected the bytes of 1 chunks back, found others\n")
    assert not (tmp_path / "results.csv").exists()


def _arguments(model: Path, target: Path) -> list[str]:
    sizes = ["--tokens", "60", "--lanes", "1,2", "--rows", "8", "--repeats", "1"]
    return ["--model", str(model), *sizes, "--results", str(target)]
