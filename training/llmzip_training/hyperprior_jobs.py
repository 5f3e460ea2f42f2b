# ruff: noqa: TID253
"""Trains what `llmzip train hyperprior` asks for; imports torch, so it is loaded lazily as a whole.

`--out` fills with `population.npz`, batch by batch, and at the end with `hyperprior.net` and `report.json`. The same
command continues a run that was paused or killed.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import NETWORK_FILE, pack_network
from llmzip.conditioning.normal import nearest_code, step_of
from llmzip_training.conditioned import ConditionedModel
from llmzip_training.files import write_whole
from llmzip_training.hyperprior import FitConfig, fit_all
from llmzip_training.hyperprior_export import export
from llmzip_training.hyperprior_report import (
    CHUNK,
    ENTRY,
    check_estimate,
    chunk_bits,
    code_learned,
    code_shared,
    fixed_gaussian_bits,
    text_report,
)
from llmzip_training.job import Job
from llmzip_training.population import (
    Pieces,
    Population,
    PopulationConfig,
    cut_pieces,
    text_bits,
    train_population,
)

POPULATION_FILE = "population.npz"


def train_hyperprior(job: Job, population: PopulationConfig, fitting: FitConfig) -> bool:
    """Train a population, and a hyperprior on it, until the end or a pause of the population; True at the end.

    Raises:
        LlmzipError: model, text, files or configuration are not as they should be, or a loss is not finite.
    """
    pause_at = time.monotonic() + job.pause_after_s
    artefact, frozen = job.load_model()
    train, held_out = job.load_shared_texts(artefact, "hyperprior")
    model = ConditionedModel(frozen)
    # Both parts of shards differ in what they hold of each kind, so training documents alone are split once more.
    pieces = cut_pieces(train, None if job.data else held_out, population)
    found = train_population(model, pieces, population, job.out / POPULATION_FILE, artefact.id, pause_at)
    if found is None:
        print("paused", flush=True)
        return False
    embedding = frozen.embed_tokens.weight.detach().cpu()
    network, report = learn(found, pieces.before, embedding, fitting, artefact.id, job.device)
    report |= _text_facts(model, pieces, report, population.batch)
    report |= {"population": asdict(population), "fitting": asdict(fitting)}
    write_whole(job.out / NETWORK_FILE, pack_network(network))
    job.write_report(report)
    return True


def learn(
    population: Population,
    before: Tensor,
    embedding: Tensor,
    fitting: FitConfig,
    artefact_id: str,
    device: str | None = None,
) -> tuple[HyperpriorNetwork, dict[str, Any]]:
    """Learn from a population: the best network, and what held-out vectors cost under it and others.

    Args:
        population: matrices.
        before: tokens of the window before each piece, int64 `[N, T]`.
        embedding: of tokens, float `[V, D]`.
        fitting: how.
        artefact_id: of the model.
        device: that computes.

    Returns:
        The network, and the report; `coded` in it are the vectors under each hyperprior.
    """
    codes = [nearest_code(float(step)) for step in population.common_steps]
    steps = np.array([step_of(code) for code in codes])
    levels = torch.from_numpy(_levels(population.shifts, steps)).to(device or "cpu")
    features = torch.from_numpy(population.features).to(levels.device)
    apart = torch.from_numpy(population.held_out)
    seen, unseen = (levels[~apart], features[~apart]), (levels[apart], features[apart])
    held_out = population.shifts[population.held_out]
    fitted = fit_all(*seen, fitting)
    coded = code_shared(held_out, codes)
    networks: dict[str, HyperpriorNetwork] = {}
    checks = {}
    texts = list(before.numpy().astype(np.int32)[population.held_out])
    for source, one in fitted.items():
        networks[source] = export(one.model, *seen, codes, artefact_id, embedding.to(levels.device))
        coded[source] = code_learned(held_out, networks[source], texts)
        checks[source] = check_estimate(coded[source], one.model, unseen[1])
    costs = {name: one.report(held_out) for name, one in coded.items()}
    for name, cost in costs.items():
        cost[CHUNK] = chunk_bits(coded[name], networks.get(name))
    # An entry of a set has no text before it.
    del costs["text"][ENTRY], costs["text"]["metadata_bits_per_coordinate"]
    costs["fixed-gaussian"] = fixed_gaussian_bits(seen[0], unseen[0])
    best = min(fitted, key=lambda source: fitted[source].unseen_bits)
    facts = {"network": networks[best].id.hex(), "source": best, "network_bytes": len(pack_network(networks[best]))}
    facts |= {
        "training_vectors": len(seen[0]),
        "steps": steps.tolist(),
        "held_out_vectors": len(held_out),
        "coordinates": int(held_out[0].size),
    }
    facts["penalties"] = {source: found.penalties for source, found in fitted.items()}
    facts["unseen_bits_per_coordinate"] = {source: found.unseen_bits for source, found in fitted.items()}
    zeros = (unseen[0] == 0).float().mean(dim=(0, 2)).tolist()
    return networks[best], facts | {"zeros": zeros, "costs": costs, "estimates": checks, "coded": coded}


def _levels(shifts: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    numbers = np.rint(shifts.astype(np.float64) / steps.astype(np.float64)[:, None])
    return numbers.astype(np.float32)


def _text_facts(model: ConditionedModel, pieces: Pieces, report: dict[str, Any], batch: int) -> dict[str, Any]:
    windows = pieces.windows[pieces.held_out].to(model.model.embed_tokens.weight.device)
    shifts = torch.from_numpy(report.pop("coded")["gaussian"].values()).to(windows.device)
    before, after = (text_bits(model, windows, rows, batch).sum().item() for rows in (None, shifts))
    return {"text": text_report(before, after, report["costs"], shifts.numel())}
