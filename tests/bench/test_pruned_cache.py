from __future__ import annotations

import csv
import importlib.util
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench import pruned_cache, results
from bench.pruned_cache import UNPRUNED, AttentionClock, SettingCoding, last_query_sees, variants
from bench.selection import with_selection
from llmzip.codec import Codec, Tokens
from llmzip.errors import ConfigError, ExactnessError, ModelInvalidError
from llmzip.lanes import Lanes
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.store import StoredModel
from llmzip.windows import Windowing

WINDOWING = Windowing(64, 16)


@pytest.fixture(scope="module")
def artefact(selective_model: Path) -> Artefact:
    """The selective model, loaded."""
    return load_artefact(selective_model)


@pytest.fixture(scope="module")
def tokens(artefact: Artefact, sample_text: bytes) -> Tokens:
    """The beginning of the text, 150 tokens: three windows of 64."""
    return Codec(artefact, WINDOWING).tokenise([sample_text[:2000]])[0][:150]


@pytest.fixture(scope="module")
def masked_forward() -> ModuleType:
    """The module of the exact transformer's tests that works out who is seen, with masks and sets."""
    path = Path(__file__).parents[1] / "exact" / "masked_forward.py"
    spec = importlib.util.spec_from_file_location("masked_forward", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 17, 63, 150])
@pytest.mark.parametrize(("cutoff", "budgets"), [(2.0, (40,)), (4.0, ()), (512.0, (7,)), (512.0, ())])
def test_keys_seen_are_those_of_the_masks(
    n_tokens: int, cutoff: float, budgets: tuple[int, ...], artefact: Artefact, tokens: Tokens, masked_forward: Any
) -> None:
    """The last query of the first window sees as many keys as masks over the whole window leave it."""
    codec = Codec(with_selection(artefact, cutoff, budgets), WINDOWING)
    bos = np.array([artefact.spec.bos_id], np.int32)
    inputs = np.concatenate([bos, tokens[:n_tokens]])[: WINDOWING.window]
    _, layers = masked_forward.masked_hidden(codec.artefact.spec, artefact.parameters, inputs)
    assert last_query_sees(codec, tokens[:n_tokens]) == [len(forgetting.seen[-1]) for forgetting in layers]


def test_variants_change_one_thing_each(artefact: Artefact) -> None:
    """Nothing dropped and the model as it is come first; the others have its other setting and all its numbers."""
    found = variants(artefact, [1.5], [(9,)])
    selections = {name: variant.spec.selection for name, variant in found.items()}
    assert {name: (s.cutoff, s.budgets) for name, s in selections.items() if s} == {
        UNPRUNED: (2**19, ()),
        "as it is: cutoff 2, budgets 40": (2048, (40,)),
        "cutoff 1.5, budgets 40": (1536, (40,)),
        "cutoff 2, budgets 9": (2048, (9,)),
    }
    assert all(variant.parameters is artefact.parameters for variant in found.values())


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 513.0, float("nan")])
def test_cutoff_out_of_range_is_refused(cutoff: float, artefact: Artefact) -> None:
    """No cutoff but one of the engine's nats is taken."""
    with pytest.raises(ConfigError, match="at most 512, found"):
        with_selection(artefact, cutoff=cutoff)


def test_budgets_of_other_layers_are_refused(artefact: Artefact) -> None:
    """Several budgets must be as many as layers."""
    with pytest.raises(ModelInvalidError, match="1 entries or none, found 2"):
        with_selection(artefact, budgets=(8, 8))


def test_less_seen_takes_less_memory(artefact: Artefact, tokens: Tokens) -> None:
    """The cache has slots for a budget's keys, or for a window's without one."""
    codings = {
        name: SettingCoding(variant, WINDOWING, [tokens[:100], tokens[50:]], 1)
        for name, variant in variants(artefact, [], [(16,)]).items()
    }
    unpruned, as_it_is, narrow = codings.values()
    # 16 slots of 64; scales, F and places shrink alike, and one count of 4 bytes for each of the lanes does not.
    assert 4 * (narrow.cache_bytes - 2 * 4) == unpruned.cache_bytes - 2 * 4
    assert narrow.keys_seen <= 16
    assert narrow.keys_seen <= as_it_is.keys_seen < unpruned.keys_seen == 64


def test_clock_counts_attention_only(artefact: Artefact, tokens: Tokens) -> None:
    """Its seconds are some of those of the run."""
    coding = SettingCoding(artefact, WINDOWING, [tokens], 1)
    start = time.perf_counter()
    coding.decode_by_operations()
    assert 0 < coding.attention[0] < time.perf_counter() - start


def test_other_payloads_by_operations_are_an_error(
    artefact: Artefact, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is clocked must be what is measured."""
    attend = AttentionClock.selective_attention
    monkeypatch.setattr(AttentionClock, "selective_attention", lambda *arguments: 1.5 * attend(*arguments))
    with pytest.raises(ExactnessError, match="operation by operation"):
        SettingCoding(artefact, WINDOWING, [tokens], 1)


def test_every_setting_leaves_its_rows(
    selective_model: Path, sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Six figures a setting, and the share of each of that with nothing dropped, in the tables and in the results."""
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    arguments = _arguments(selective_model, sample_text, tmp_path)
    assert pruned_cache.main([*arguments, "--cutoffs", "1,8", "--budgets", "12,0"]) == 0
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6 * 6 * 2
    names = {row["case"].partition(": ")[2] for row in rows}
    assert {UNPRUNED, "cutoff 1, budgets 40", "cutoff 2, budgets 12", "cutoff 2, no budgets"} < names
    shares = {row["value"] for row in rows if row["case"].endswith(UNPRUNED) and "/ that" in row["metric"]}
    assert shares == {"1"}
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"| {UNPRUNED} |") for line in lines) == 2


def test_wrong_text_leaves_no_figure(
    selective_model: Path, sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Where decoding gives other bytes, nothing is printed or recorded, and the status is 1."""
    end = Lanes.end
    monkeypatch.setattr(Lanes, "end", lambda lanes, lane: end(lanes, lane)[::-1])
    assert pruned_cache.main(_arguments(selective_model, sample_text, tmp_path)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "pruned_cache: decode: expected the bytes of 3 chunks back, found others\n"
    assert not (tmp_path / "results.csv").exists()


def test_model_without_selection_is_refused(
    tiny_model: StoredModel, sample_text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to prune in plain attention."""
    assert pruned_cache.main(_arguments(tiny_model.path, sample_text, tmp_path)) == 1
    assert "expected selective attention, found none in bigram" in capsys.readouterr().err


def test_more_lanes_than_tokens_are_refused(
    selective_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each lane needs a token."""
    assert pruned_cache.main(_arguments(selective_model, b"a", tmp_path)) == 1
    assert capsys.readouterr().err == "pruned_cache: lanes: expected at most 1, one a token, found 3\n"


def _arguments(model: Path, text: bytes, folder: Path) -> list[str]:
    (folder / "text.py").write_bytes(text[:600])
    sizes = ["--tokens", "150", "--lanes", "3", "--repeats", "1", "--threads", "1"]
    return ["--model", str(model), "--text", str(folder / "text.py"), *sizes, "--results", str(folder / "results.csv")]
