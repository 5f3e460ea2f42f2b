"""From a float model to an artefact: each row of a matrix to int8 by its greatest magnitude.

Every number of an artefact is one or two correctly rounded operations away from the source's, so
that a converted model, and its id, are the same on every machine. All products take their input in
two limbs: with rows of 14 bits nothing needs to be calibrated on a text (docs/benchmarks.md has what
one limb costs, with and without smoothing).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmzip.exact.matrix import QuantisedMatrix, quantise_matrix
from llmzip.exact.spec import MAX_NGRAM_TABLES
from llmzip.exact.transformer import Parameters
from llmzip.models.artefact import Settings, save_artefact
from llmzip.models.convert.float_model import FloatModel
from llmzip.tokens.tokenizer import strip_tokenizer
from llmzip.tokens.vocabulary import Vocabulary

PRODUCTS = ("embed", "head", "q", "k", "v", "o", "gate", "up", "down")
LOOKUPS = tuple(f"ngram{n + 2}" for n in range(MAX_NGRAM_TABLES))


def build_artefact(model: FloatModel, folder: Path, progress: Callable[[str], None] | None = None) -> str:
    """Convert a float model and write the artefact's files into `folder`.

    Args:
        model: as read by `llmzip.models.convert`.
        folder: an existing, empty folder.
        progress: told in a few words what is being done.

    Returns:
        The artefact's id.
    """
    if progress:
        progress("quantising")
    settings = Settings(model.spec, two_limbs=PRODUCTS)
    vocabulary = Vocabulary.from_tokenizer(model.tokenizer_json, model.spec.vocab_size, model.spec.bos_id)
    return save_artefact(folder, settings, quantise(model, settings), vocabulary, strip_tokenizer(model.tokenizer_json))


def quantise(model: FloatModel, settings: Settings) -> Parameters:
    """Round the matrices to int8; vectors stay float32. Source: ARITHMETIC.md, section 7."""
    matrices, vectors = {}, {}
    for full_name in sorted(model.tensors):
        name, kind = full_name.rsplit(".", 1)
        if name.rsplit(".", 1)[-1] not in PRODUCTS + LOOKUPS:
            vectors[name if kind == "weight" else full_name] = model.tensors[full_name]
        elif kind == "weight":
            q, scale = quantise_matrix(model.tensors[full_name])
            matrices[name] = QuantisedMatrix(q, scale, model.tensors.get(f"{name}.bias"), settings.limit(name))
    return Parameters(matrices, vectors)
