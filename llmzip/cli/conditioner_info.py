"""What `llmzip info` says of conditioners: those in an archive, and those in a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzip.errors import ModelError
from llmzip.format.limits import CONDITIONER_MAGIC

if TYPE_CHECKING:
    from llmzip.format import Header


def is_conditioner_file(name: str) -> bool:
    """Whether a file begins as conditioner files do."""
    path = Path(name)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(CONDITIONER_MAGIC)) == CONDITIONER_MAGIC


def file_facts(name: str) -> dict[str, Any]:
    """Of a conditioner file: model, id, notes, sizes, and where the model is here, the parts of its set.

    Raises:
        ConditionerInvalidError: it is damaged.
    """
    from llmzip.conditioning.conditioner_file import read_conditioner_file

    file = read_conditioner_file(Path(name))
    return {
        "model": file.artefact_id,
        "id": file.id.hex(),
        "set_bytes": len(file.body),
        "chooser": file.chooser is not None,
        "notes": file.notes,
        "set": _set_facts(bytes.fromhex(file.artefact_id), file.body),
    }


def header_facts(header: Header) -> dict[str, Any] | None:
    """Of the conditioners of a frame; None where it has none.

    Raises:
        FormatError: the section is none.
    """
    if header.codebook:
        return {"place": "codebook of the model"}
    if not header.conditioner:
        return None
    from llmzip.conditioning.conditioning import embedded_body, name_in

    name = name_in(header.conditioner)
    if name is not None:
        return {"place": "named", "name": name.hex()}
    body = embedded_body(header.conditioner)
    return {"place": "embedded", "set_bytes": len(body), "set": _set_facts(header.artefact_id, body)}


def _set_facts(artefact_id: bytes, body: bytes) -> dict[str, Any] | None:
    """The parts of a set; None where what says how to read it, the model or a hyperprior's network, is not here."""
    import llmzip.conditioner_store  # noqa: F401 (says where networks of learned hyperpriors are)
    from llmzip.conditioning.conditioner_set import ConditionerSet
    from llmzip.conditioning.description import describe
    from llmzip.models.artefact import read_spec
    from llmzip.models.store import find_by_id

    try:
        spec = read_spec(find_by_id(artefact_id).path)
        return describe(ConditionerSet.unpack(body, spec))
    except ModelError:
        return None


def lines_of(facts: dict[str, Any]) -> list[str]:
    """The facts as lines for people."""
    from llmzip.conditioning.description import lines_of as lines_of_set

    lines = [f"{key.replace('_', ' '):<20} {_text(value)}" for key, value in facts.items() if key != "set"]
    if "set" in facts:
        needed = "its parts need the model, and the network of a learned hyperprior"
        parts = lines_of_set(facts["set"]) if facts["set"] else [needed]
        lines += [f"  {line}" for line in parts]
    return lines


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {one}" for key, one in value.items()) or "-"
    return str(value)
