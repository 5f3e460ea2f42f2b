"""From a float model to an artefact: smoothing, then rounding to int8.

Inputs of the matrices in `TWO_LIMB_MATRICES` have 14 bits and need no help. Of the others,
a few channels are far larger than the rest, which would cost the rest most of their bits. Before
rounding, column j of such a matrix is multiplied by s[j] and what feeds it is divided by s[j], with
s[j] = sqrt(greatest input / greatest weight): the product stays, the range is shared.
The greatest inputs are read from the exact engine itself, running the unsmoothed model over
`calibration.txt`, so that an artefact is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmzip.exact.backend import load_backend
from llmzip.exact.matrix import SMALLEST, QuantisedMatrix, quantise_matrix
from llmzip.exact.transformer import Parameters, Probe, Segment, Transformer
from llmzip.models.artefact import Settings, save_artefact
from llmzip.models.convert.float_model import FloatModel
from llmzip.tokens.tokenizer import ByteTokenizer, strip_tokenizer
from llmzip.tokens.vocabulary import Vocabulary

Floats = NDArray[np.float32]
Scales = Mapping[str, Floats]

TWO_LIMB_MATRICES = ("embed", "head", "o", "v")
CALIBRATION_WINDOW = 256


def build_artefact(model: FloatModel, folder: Path, progress: Callable[[str], None] | None = None) -> str:
    """Convert a float model and write the artefact's files into `folder`.

    Args:
        model: as read by `llmzip.models.convert`.
        folder: an existing, empty folder.
        progress: told in a few words what is being done.

    Returns:
        The artefact's id.
    """
    tell = progress or (lambda _: None)
    settings = Settings(model.spec, TWO_LIMB_MATRICES)
    vocabulary = Vocabulary.from_tokenizer(model.tokenizer_json, model.spec.vocab_size, model.spec.bos_id)
    tokenizer_json = strip_tokenizer(model.tokenizer_json)
    tell("calibrating")
    tokens = ByteTokenizer(tokenizer_json, vocabulary).encode(_calibration_text())
    scales = smoothing_scales(model, calibrate(settings, quantise(model, settings, {}), tokens))
    tell("quantising")
    return save_artefact(folder, settings, quantise(model, settings, scales), vocabulary, tokenizer_json)


def _calibration_text() -> bytes:
    return (Path(__file__).parent / "calibration.txt").read_bytes()


def calibrate(settings: Settings, parameters: Parameters, tokens: NDArray[np.int32]) -> Scales:
    """Greatest magnitude of each input column of each matrix over windows of `tokens`."""
    spec = settings.model
    transformer = Transformer(spec, parameters, load_backend("cpu"))
    probe = Probe()
    window = min(CALIBRATION_WINDOW, spec.max_positions)
    for start in range(0, len(tokens), window - 1):
        ids = np.concatenate([[spec.bos_id], tokens[start : start + window - 1]]).astype(np.int32)
        hidden = transformer.hidden(transformer.new_cache(1, window), [Segment(0, 0, ids)], probe)
        transformer.logits(hidden, probe)
    return probe.greatest


def smoothing_scales(model: FloatModel, greatest: Scales) -> dict[str, Floats]:
    """For each group of one-limb matrices with one input, under the name of what feeds it, the scale s.

    Source: ARITHMETIC.md, section 7.
    """
    spec, scales = model.spec, {}
    for layer in range(spec.n_layers):
        prefix = f"layers.{layer}."
        scales[prefix + "attention_norm"] = _shared(model.tensors, greatest, [prefix + name for name in "qkv"])
        first = ["gate", "up"] if spec.mlp == "gated" else ["up"]
        scales[prefix + "mlp_norm"] = _shared(model.tensors, greatest, [prefix + name for name in first])
        if spec.mlp == "gated":
            scales[prefix + "up"] = _shared(model.tensors, greatest, [prefix + "down"])
    return scales


def _shared(tensors: Scales, greatest: Scales, names: list[str]) -> Floats:
    weights = np.max([np.abs(tensors[name + ".weight"]).max(axis=0) for name in names], axis=0)
    return _balance(greatest[names[0]], weights)


def _balance(inputs: Floats, weights: Floats) -> Floats:
    usable = (inputs >= SMALLEST) & (weights >= SMALLEST)
    ratio = np.where(usable, inputs, np.float32(1)) / np.where(usable, weights, np.float32(1))
    return np.sqrt(ratio.astype(np.float32))


def quantise(model: FloatModel, settings: Settings, scales: Scales) -> Parameters:
    """Fold the smoothing scales into the tensors and round the matrices to int8."""
    matrices: dict[str, QuantisedMatrix] = {}
    vectors: dict[str, Floats] = {}
    for full_name in sorted(model.tensors):
        name, kind = full_name.rsplit(".", 1)
        tensor = model.tensors[full_name]
        if tensor.ndim == 2 and name != "positions":
            bias = model.tensors.get(name + ".bias")
            matrices[name] = _matrix(name, tensor, bias, scales, settings.limit(name))
        elif name == "positions":
            vectors[name] = tensor
        elif name not in _matrix_names(model):
            scale = scales.get(name)
            smoothed = tensor if scale is None else tensor / scale
            vectors[name if kind == "weight" else full_name] = smoothed
    return Parameters(matrices, vectors)


def _matrix_names(model: FloatModel) -> set[str]:
    return {name.removesuffix(".weight") for name in model.tensors if _is_matrix(name)}


def _is_matrix(name: str) -> bool:
    return name.rsplit(".", 2)[-2] in ("embed", "head", "q", "k", "v", "o", "gate", "up", "down")


def _matrix(name: str, weight: Floats, bias: Floats | None, scales: Scales, limit: int) -> QuantisedMatrix:
    input_scale, output_scale = scales.get(_feeder(name)), scales.get(name)
    if input_scale is not None:
        weight = weight * input_scale[None, :]
    if output_scale is not None:
        weight = weight / output_scale[:, None]
        bias = None if bias is None else bias / output_scale
    q, scale = quantise_matrix(weight)
    return QuantisedMatrix(q, scale, bias, limit)


def _feeder(name: str) -> str:
    """What the input columns of the matrix `name` are divided by: a key of `smoothing_scales`, or none."""
    prefix, _, last = name.rpartition(".")
    feeders = {"q": "attention_norm", "k": "attention_norm", "v": "attention_norm"}
    feeders |= {"gate": "mlp_norm", "up": "mlp_norm", "down": "up"}
    return f"{prefix}.{feeders.get(last, '')}"
