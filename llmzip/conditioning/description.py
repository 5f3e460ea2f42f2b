"""What a set of conditioners consists of, and what each part of it costs, for people and programs."""

from __future__ import annotations

from typing import Any

from llmzip.conditioning.conditioner_set import Basis, ConditionerSet, Text
from llmzip.conditioning.hyperpriors import Coordinates
from llmzip.conditioning.learned import Learned
from llmzip.conditioning.vectors import Vectors


def describe(found: ConditionerSet) -> dict[str, Any]:
    """The parts of a set; of coordinates the bits of what says how they are coded, and of themselves."""
    if found.basis is not None:
        return _basis_facts(found.basis)
    facts: dict[str, Any] = {"entries": [_entry_facts(entry) for entry in found.entries]}
    if found.chunk_vectors is not None:
        network = found.chunk_vectors.network
        facts["chunks_bring_vectors"] = "of any distribution" if network is None else network.id.hex()
    return facts


def _basis_facts(basis: Basis) -> dict[str, Any]:
    return {
        "directions": basis.n_directions,
        "entries": len(basis.entries),
        "weights": f"-{basis.radius} to {basis.radius}",
        "chunks_bring_weights": basis.own,
        "parts": _parts_facts(basis.vectors),
    }


def _entry_facts(entry: Text | Vectors) -> dict[str, Any]:
    if isinstance(entry, Text):
        return {"kind": "string", "tokens": len(entry.tokens)}
    return {"kind": "vectors", "parts": _parts_facts(entry)}


def _parts_facts(vectors: Vectors) -> list[dict[str, Any]]:
    shape = vectors.shape
    names = [f"prefix of {shape.n_prefix}"] * (shape.n_prefix > 0) + [f"shift {i}" for i in range(shape.n_shifts)]
    return [{"part": name} | _group_facts(group) for name, group in zip(names, vectors.groups, strict=True)]


def _group_facts(group: Coordinates) -> dict[str, Any]:
    cost = group.cost()
    network = {"network": group.hyperprior.network.id.hex()} if isinstance(group.hyperprior, Learned) else {}
    return {
        "hyperprior": group.hyperprior.name,
        **network,
        "coordinates": len(group.symbols),
        "metadata_bits": round(cost.metadata_bits, 1),
        "coordinate_bits": round(cost.coordinate_bits, 1),
    }


def lines_of(facts: dict[str, Any]) -> list[str]:
    """The facts of `describe` as lines for people."""
    head = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items() if not isinstance(value, list)]
    entries = facts.get("entries")
    lines = head + [_part_line(part) for part in facts.get("parts", [])]
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        what = f"string of {entry['tokens']} tokens" if "tokens" in entry else entry["kind"]
        lines.append(f"entry {number}: {what}")
        lines += [f"  {_part_line(part)}" for part in entry.get("parts", [])]
    return lines


def _part_line(part: dict[str, Any]) -> str:
    bits = f"{part['metadata_bits']} + {part['coordinate_bits']} bits"
    network = f" by network {part['network']}" if "network" in part else ""
    return f"{part['part']}: {part['coordinates']} coordinates, {part['hyperprior']}{network}, {bits}"
