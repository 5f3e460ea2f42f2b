# ruff: noqa: TID253
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llmzip.cli.train_hyperprior import hyperprior
from llmzip.conditioning.hyperpriors import quantise
from llmzip.conditioning.learned import Learned
from llmzip.conditioning.network_file import read_network
from llmzip.errors import ConfigError, FileError
from llmzip.models.artefact import Artefact
from llmzip.models.store import StoredModel
from llmzip_training.conditioned import ConditionedModel
from llmzip_training.frozen import load_frozen
from llmzip_training.hyperprior import FitConfig, fit, fit_all, total_bits
from llmzip_training.hyperprior_export import export
from llmzip_training.hyperprior_jobs import learn
from llmzip_training.hyperprior_report import code_learned
from llmzip_training.latent_prior import LatentPrior
from llmzip_training.population import (
    Pieces,
    Population,
    PopulationConfig,
    cut_pieces,
    text_bits,
    train_matrices,
    train_population,
)
from llmzip_training.streams import TokenStream, encode_stream

FIT = FitConfig(latents=2, steps=80, rate=0.1, penalties=(2.0,))
EMBEDDING = np.random.default_rng(7).normal(0, 0.6, (12, 4))
SMALL = PopulationConfig(pieces=6, held_out=2, context=32, batch=4, steps=3, rate=0.02, rate_weight=1 / 32)


def _population(n: int = 56, n_train: int = 50) -> Population:
    """Rows whose deviations differ by coordinate, and whose size and one direction differ by vector; steps of 1/4."""
    rng = np.random.default_rng(5)
    P, D = 2, 48
    scales = np.exp(rng.normal(0, 1, (P, D)))
    # The text before tells how great a row is, and how much it has of the direction.
    means = EMBEDDING[_texts(n)].mean(axis=1)
    told = np.clip((means - means.mean(axis=0)) / means.std(axis=0), -2, 2)
    sizes = np.exp(0.5 * told[:, :1, None])
    direction = rng.normal(0, 1.5, (P, D)) * told[:, 1:2, None]
    shifts = 0.25 * (rng.normal(size=(n, P, D)) * scales * sizes + direction)
    features = EMBEDDING[_texts(n)].mean(axis=1)
    steps = np.full((n, P), 0.25, dtype=np.float32)
    return Population(shifts.astype(np.float32), steps, features.astype(np.float32), np.arange(n) >= n_train)


def _texts(n: int) -> NDArray[np.int64]:
    """Windows of 64 tokens that differ in what they are full of."""
    rng = np.random.default_rng(6)
    return np.stack([rng.choice(len(EMBEDDING), 64, p=rng.dirichlet(np.full(len(EMBEDDING), 0.3))) for _ in range(n)])


def _text(artefact: Artefact) -> TokenStream:
    return encode_stream([f"{i}: {i * i} and so on; ".encode() * 40 for i in range(12)], artefact)


@pytest.fixture(scope="module")
def learned() -> dict[str, Any]:
    """What is reported of a population of random numbers."""
    before, embedding = torch.from_numpy(_texts(56)), torch.from_numpy(EMBEDDING).float()
    network, report = learn(_population(), before, embedding, FIT, "00" * 32)
    return report | {"the_network": network}


def test_learned_hyperpriors_beat_a_fixed_gaussian_on_held_out_vectors(learned: dict[str, Any]) -> None:
    """R_y + R_u, all coded as archives code them and at the same distortion; latents gain more than they cost."""
    costs = learned["costs"]
    fixed = costs["fixed-gaussian"]["coordinates_bits_per_coordinate"]
    plain = costs["factorised"]["coordinates_bits_per_coordinate"]
    with_latents = sum(costs["mean-scale"][f"{name}_bits_per_coordinate"] for name in ("coordinates", "latents"))
    assert plain < 0.97 * fixed
    assert with_latents < 0.97 * plain
    assert with_latents < 0.95 * costs["gaussian"]["coordinates_bits_per_coordinate"]
    assert costs["text"]["coordinates_bits_per_coordinate"] < 0.99 * plain
    assert costs["mean-scale"]["latents_bits_per_coordinate"] > 0
    errors = [costs[name]["mean_squared_error"] for name in ("gaussian", "empirical", "factorised", "mean-scale")]
    assert errors == [errors[0]] * 4
    assert costs["lloyd-max"]["mean_squared_error"] <= errors[0]
    assert learned["source"] == "mean-scale"


def test_a_network_that_is_named_once_costs_less(learned: dict[str, Any]) -> None:
    """Chunks that bring vectors do without the network's id and the step in each row."""
    costs = learned["costs"]
    for source in ("factorised", "mean-scale", "text"):
        found = sum(costs[source][f"{name}_bits_per_coordinate"] for name in ("coordinates", "latents"))
        assert found < costs[source]["chunk_bits_per_coordinate"] < found + 12 / 48
    gaussian = costs["gaussian"]
    assert gaussian["chunk_bits_per_coordinate"] == pytest.approx(gaussian["total_bits_per_coordinate"])
    assert "total_bits_per_coordinate" not in costs["text"]


@pytest.mark.parametrize("source", ["factorised", "mean-scale", "text"])
def test_coded_size_is_that_of_the_estimate(learned: dict[str, Any], source: str) -> None:
    """Within 2 %: integers lose nothing that counts."""
    found = learned["estimates"][source]
    assert found["coded_bytes"] == pytest.approx(found["estimated_bytes"], rel=0.02)


def test_parts_of_the_cost_add_up(learned: dict[str, Any]) -> None:
    """And are those of one stream of everything."""
    for name in ("gaussian", "empirical", "lloyd-max", "factorised", "mean-scale"):
        parts = [
            learned["costs"][name][f"{part}_bits_per_coordinate"] for part in ("coordinates", "latents", "metadata")
        ]
        coded = learned["coded"][name]
        assert sum(parts) == pytest.approx(learned["costs"][name]["total_bits_per_coordinate"])
        assert abs(coded.bytes_of() * 8 - coded.total_bits()) <= 64


def test_a_step_decodes_to_the_same_values() -> None:
    """All hyperpriors of the same step round alike."""
    population = _population(8, 6)
    levels, features = torch.from_numpy(np.rint(population.shifts * 4)), torch.from_numpy(population.features)
    model = fit(levels, features, "mean-scale", FIT, (2, 2))
    network = export(model, levels, features, [168, 168], "00" * 32, torch.from_numpy(EMBEDDING).float())
    coded = code_learned(population.shifts, network, list(_texts(8).astype(np.int32)))
    shared = [quantise(vector.reshape(-1), "gaussian", step=0.25).values() for vector in population.shifts]
    assert np.array_equal(coded.values(), np.stack([row.reshape(2, -1) for row in shared]))
    assert np.array_equal(coded.values(), np.rint(population.shifts * 4).astype(np.float32) / 4)


def test_training_lowers_both_rates_together() -> None:
    """Against the hyperprior before its first step."""
    population = _population()
    levels, features = torch.from_numpy(np.rint(population.shifts * 4)), torch.from_numpy(population.features)
    short, long = (fit(levels, features, "mean-scale", FitConfig(steps=n), (2.0, 2.0)) for n in (1, 60))
    assert sum(total_bits(long, levels, features)) < 0.97 * sum(total_bits(short, levels, features))


def test_fits_are_the_same_again() -> None:
    """All randomness is a function of the seed."""
    population = _population(10, 10)
    levels, features = torch.from_numpy(np.rint(population.shifts * 4)), torch.from_numpy(population.features)
    config = FitConfig(steps=4, penalties=(2.0,))
    found = [fit_all(levels, features, config) for _ in range(2)]
    for source, one in found[0].items():
        for name, tensor in one.model.state_dict().items():
            assert torch.equal(tensor, found[1][source].model.state_dict()[name])


def test_latents_have_probability_one_and_learn_where_they_are() -> None:
    """The distribution function rises from 0 to 1, and its density gathers around what is seen."""
    torch.manual_seed(0)
    prior = LatentPrior(2)
    grid = torch.arange(-500.0, 501.0)[:, None].expand(-1, 2)
    assert torch.exp2(-prior.bits(grid)).sum(dim=0).tolist() == pytest.approx([1, 1], abs=1e-3)
    seen = torch.tensor([[3.0, -1.0]]).repeat(64, 1) + torch.randn(64, 2).round()
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.05)
    before = prior.bits(seen).mean().item()
    for _ in range(80):
        optimiser.zero_grad()
        prior.bits(seen).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert prior.bits(seen).mean().item() < before - 0.5
    assert prior.bits(seen).mean().item() == pytest.approx(math.log2(math.sqrt(2 * math.pi * math.e)), abs=0.3)


def test_matrices_lower_the_bits_of_their_pieces(tiny_artefact: Artefact) -> None:
    """Each those of its own."""
    model = ConditionedModel(load_frozen(tiny_artefact))
    pieces = cut_pieces(_text(tiny_artefact), None, SMALL)
    config = PopulationConfig(context=32, batch=4, steps=12, rate=0.02, rate_weight=1e-3)
    found = train_matrices(model, pieces.windows[:4], config)
    before, after = (text_bits(model, pieces.windows[:4], rows, 2) for rows in (None, found["shifts"]))
    assert (after < before).all()
    assert (found["shifts"].shape, found["steps"].shape) == ((4, 2, 256), (4, 2))


def test_pieces_follow_on_what_is_before_them(tiny_artefact: Artefact) -> None:
    """In the same document; held-out ones come from other documents, or from another text."""
    text = _text(tiny_artefact)
    for held_out in (None, encode_stream([b"something else, " * 60], tiny_artefact)):
        pieces = cut_pieces(text, held_out, SMALL)
        n = len(pieces.windows)
        assert pieces.before.shape == (n, 32)
        assert n == (6 if held_out is None else 8)
        assert pieces.held_out.tolist() == (
            [False] * 4 + [True] + [False] if held_out is None else [False] * 6 + [True] * 2
        )
        joined = torch.cat((pieces.before, pieces.windows), dim=1)
        source = [text.tokens.tolist(), (held_out or text).tokens.tolist()]
        for i, row in enumerate(joined.tolist()):
            whole = source[i >= 6 and held_out is not None]
            assert any(whole[k : k + 64] == row for k in range(len(whole)))
        assert text.bos_id not in joined
    for few, message in ((b"short", "found none"), (b"one long document; " * 60, "found fewer")):
        with pytest.raises(ConfigError, match=message):
            cut_pieces(encode_stream([few], tiny_artefact), None, SMALL)


def test_paused_population_is_continued(tiny_artefact: Artefact, tmp_path: Path) -> None:
    """Batch by batch; the result is that of an uninterrupted one, and is read again without training."""
    model = ConditionedModel(load_frozen(tiny_artefact))
    pieces = cut_pieces(_text(tiny_artefact), None, SMALL)
    whole = train_population(model, pieces, SMALL, tmp_path / "whole.npz", tiny_artefact.id)
    part = Pieces(pieces.windows[:4], pieces.before[:4], pieces.held_out[:4])
    first = train_population(model, part, SMALL, tmp_path / "first.npz", tiny_artefact.id)
    assert whole is not None
    assert first is not None
    assert np.array_equal(first.shifts, whole.shifts[:4])
    assert train_population(model, pieces, SMALL, tmp_path / "none.npz", tiny_artefact.id, -math.inf) is None
    again = train_population(model, pieces, SMALL, tmp_path / "whole.npz", tiny_artefact.id, -math.inf)
    assert again is not None
    assert np.array_equal(again.shifts, whole.shifts)
    assert again.common_steps.tolist() == np.median(whole.steps[~whole.held_out], axis=0).tolist()
    with pytest.raises(ConfigError, match="found another"):
        train_population(model, pieces, SMALL, tmp_path / "whole.npz", "other")
    with pytest.raises(ConfigError, match="found another"):
        train_population(model, part, SMALL, tmp_path / "whole.npz", tiny_artefact.id)
    (tmp_path / "whole.npz").write_bytes(b"PK damaged")
    with pytest.raises(FileError, match="expected arrays"):
        train_population(model, pieces, SMALL, tmp_path / "whole.npz", tiny_artefact.id)


def test_command_leaves_a_network_and_a_report(tiny_model: StoredModel, shards: Path, tmp_path: Path) -> None:
    """Which a reader finds usable; the same command continues with the population that is there."""
    out = tmp_path / "out"
    options: dict[str, Any] = {"pieces": 10, "steps": 2, "context": 24, "rate": 0.02}
    options |= {"model": tiny_model.name, "data": shards, "n_bytes": 40000, "fit_steps": 5, "threads": 1, "latents": 1}
    hyperprior(out, **options, pause_after=0)
    assert not (out / "hyperprior.net").exists()
    hyperprior(out, **options)
    network = read_network(out / "hyperprior.net")
    report = json.loads((out / "report.json").read_text())
    assert (network.artefact_id, network.n_parts, network.width) == (tiny_model.id, 2, 256)
    assert report["network"] == network.id.hex()
    text = report["text"]
    assert text["gain_bits"] == pytest.approx(text["bits_without"] - text["bits_with"])
    n_rows, entries, chunks = (
        report["held_out_vectors"] * 2,
        *(text[f"{place}_bits_per_coordinate"] for place in ("total", "chunk")),
    )
    # Name, row, step and kind, but for what says that the network codes a row.
    assert entries["factorised"] - chunks["factorised"] == pytest.approx(n_rows * (32 + 1 + 8 + 2 - 1))
    with pytest.raises(ConfigError, match="found another"):
        hyperprior(out, **(options | {"context": 20}))
    assert Learned.kind == 3


@pytest.mark.parametrize("options", [{"pieces": 0}, {"rate": 0.0}, {"rate_weight": -1.0}, {"steps": 0}])
def test_populations_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        PopulationConfig(**options)


@pytest.mark.parametrize("options", [{"latents": 0}, {"steps": 0}, {"rate": 0.0}])
def test_fits_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        FitConfig(**options)
