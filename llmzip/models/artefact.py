"""Artefacts: a model converted to exact arithmetic, as files and in memory.

An artefact is a folder of three files: `spec.json` (the transformer and which products take two
limbs), `tensors.safetensors` (int8 matrices, float32 scales and vectors, the vocabulary table) and
`tokenizer.json` (for the encoder only: the decoder reads the table). Its id is the SHA-256 of
their contents, written in ARITHMETIC.md, section 8; how safetensors orders its header is no part.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError, ModelNotFoundError
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Parameters
from llmzip.format.limits import ARITHMETIC_VERSION
from llmzip.models.convert.float_model import tensor_shape
from llmzip.tokens.vocabulary import Vocabulary

SPEC_FILE, TENSORS_FILE, TOKENIZER_FILE = "spec.json", "tensors.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class Settings:
    """What `spec.json` holds.

    Attributes:
        model: the transformer.
        two_limbs: last parts of the names of the matrices whose input rows have 14 bits.
    """

    model: ModelSpec
    two_limbs: tuple[str, ...]

    def to_json(self) -> str:
        """The canonical text, which the id is computed from."""
        fields = {
            "arithmetic": ARITHMETIC_VERSION,
            "model": json.loads(self.model.to_json()),
            "two_limbs": sorted(self.two_limbs),
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `to_json`; raises `ModelInvalidError` for anything else."""
        try:
            fields = json.loads(text)
            version, model, two_limbs = fields["arithmetic"], fields["model"], fields["two_limbs"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelInvalidError(f"{SPEC_FILE}: expected arithmetic, model and two_limbs, found {error}") from error
        if type(version) is not int or version != ARITHMETIC_VERSION:
            raise ModelInvalidError(
                f"{SPEC_FILE}: expected arithmetic version {ARITHMETIC_VERSION}, found {version}; convert it again"
            )
        if not isinstance(two_limbs, list) or not all(isinstance(name, str) for name in two_limbs):
            found = reprlib.repr(two_limbs)
            raise ModelInvalidError(f"{SPEC_FILE}: expected two_limbs to be a list of names, found {found}")
        return cls(ModelSpec.from_json(json.dumps(model)), tuple(two_limbs))

    def limit(self, name: str) -> int:
        """The greatest integer in the quantised input rows of the matrix `name`."""
        return TWO_LIMBS if name.rsplit(".", 1)[-1] in self.two_limbs else ONE_LIMB


@dataclass(frozen=True)
class Artefact:
    """A model in exact arithmetic, checked against its id.

    Attributes:
        id: 64 hexadecimal digits.
        folder: where it was read from.
        settings: what `spec.json` holds.
        parameters: matrices and vectors.
        vocabulary: the bytes of each token.
        tokenizer_json: what makes tokens of bytes.
    """

    id: str
    folder: Path
    settings: Settings
    parameters: Parameters
    vocabulary: Vocabulary
    tokenizer_json: str

    @property
    def n_bytes(self) -> int:
        """Memory of all matrices and vectors."""
        matrices = self.parameters.matrices.values()
        return sum(m.q.nbytes + m.scale.nbytes for m in matrices) + sum(
            vector.nbytes for vector in self.parameters.vectors.values()
        )

    @property
    def spec(self) -> ModelSpec:
        """The transformer."""
        return self.settings.model


def save_artefact(
    folder: Path,
    settings: Settings,
    parameters: Parameters,
    vocabulary: Vocabulary,
    tokenizer_json: str,
) -> str:
    """Write the three files into `folder` and return the id, 64 hexadecimal digits."""
    from safetensors.numpy import save_file

    tensors = _to_tensors(parameters, vocabulary)
    save_file(tensors, folder / TENSORS_FILE)
    (folder / SPEC_FILE).write_text(settings.to_json(), encoding="utf-8", newline="")
    (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8", newline="")
    return artefact_id(settings.to_json(), tokenizer_json, tensors)


def read_spec(folder: Path) -> ModelSpec:
    """The transformer of an artefact, without its tensors.

    Raises:
        ModelNotFoundError: there is none.
        ModelInvalidError: it is damaged.
    """
    try:
        return Settings.from_json((folder / SPEC_FILE).read_text(encoding="utf-8")).model
    except OSError as error:
        raise ModelNotFoundError(f"artefact {folder}: expected {SPEC_FILE}, found none") from error


def load_artefact(folder: Path) -> Artefact:
    """Read an artefact and compute its id, so that damage cannot pass unseen.

    Raises:
        ModelNotFoundError: a file is missing.
        ModelInvalidError: a file is not what it should be.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    for name in (SPEC_FILE, TENSORS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise ModelNotFoundError(f"artefact {folder}: expected {name}, found none")
    try:
        spec_text = (folder / SPEC_FILE).read_text(encoding="utf-8")
        tokenizer_json = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
        tensors = load_file(folder / TENSORS_FILE)
    except (SafetensorError, UnicodeDecodeError, OSError) as error:
        raise ModelInvalidError(f"artefact {folder}: {error}") from error
    settings = Settings.from_json(spec_text)
    try:
        parameters, vocabulary = _from_tensors(tensors, settings)
    except KeyError as error:
        raise ModelInvalidError(f"artefact {folder}: expected the tensor {error.args[0]}, found none") from error
    _check_parameters(parameters, settings.model)
    identity = artefact_id(spec_text, tokenizer_json, tensors)
    return Artefact(identity, folder.resolve(), settings, parameters, vocabulary, tokenizer_json)


def artefact_id(spec_text: str, tokenizer_json: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the parts, each under its name and length. Source: ARITHMETIC.md, section 8."""
    digest = hashlib.sha256()

    def add(name: str, kind: str, content: bytes) -> None:
        head = json.dumps([name, kind, len(content)], separators=(",", ":")).encode()
        digest.update(len(head).to_bytes(4, "little") + head)
        digest.update(content)

    add(SPEC_FILE, "text", spec_text.encode())
    add(TOKENIZER_FILE, "text", tokenizer_json.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        add(name, f"{array.dtype.name}{list(array.shape)}", little.tobytes())
    return digest.hexdigest()


def _to_tensors(parameters: Parameters, vocabulary: Vocabulary) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = dict(parameters.vectors)
    for name, matrix in parameters.matrices.items():
        tensors[f"{name}.q"], tensors[f"{name}.scale"] = matrix.q, matrix.scale
        if matrix.bias is not None:
            tensors[f"{name}.bias"] = matrix.bias
    tensors["vocabulary.bytes"] = vocabulary.blob
    tensors["vocabulary.offsets"] = vocabulary.offsets
    tensors["vocabulary.byte_ids"] = vocabulary.byte_ids
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _from_tensors(tensors: Mapping[str, NDArray[Any]], settings: Settings) -> tuple[Parameters, Vocabulary]:
    names = [name.removesuffix(".q") for name in tensors if name.endswith(".q")]
    matrices = {
        name: QuantisedMatrix(
            tensors[f"{name}.q"], tensors[f"{name}.scale"], tensors.get(f"{name}.bias"), settings.limit(name)
        )
        for name in names
    }
    parts = {f"{name}.{part}" for name in names for part in ("q", "scale", "bias")}
    vectors = {
        name: array for name, array in tensors.items() if name not in parts and not name.startswith("vocabulary.")
    }
    vocabulary = Vocabulary(tensors["vocabulary.bytes"], tensors["vocabulary.offsets"], tensors["vocabulary.byte_ids"])
    if len(vocabulary) != settings.model.vocab_size:
        raise ModelInvalidError(
            f"vocabulary: expected {settings.model.vocab_size} pieces as the spec says, found {len(vocabulary)}"
        )
    return Parameters(matrices, vectors), vocabulary


def _check_parameters(parameters: Parameters, spec: ModelSpec) -> None:
    """Refuse parameters that the spec's transformer cannot run on, or that are out of range."""
    matrices, vectors = _expected_names(spec)
    for name in matrices:
        matrix = parameters.matrices.get(name)
        shape = tensor_shape(spec, f"{name}.weight")
        if matrix is None or matrix.q.shape != shape:
            raise ModelInvalidError(f"matrix {name}: expected shape {shape}, found {matrix and matrix.q.shape}")
        if matrix.q.min() < -ONE_LIMB or not _is_sound(matrix.scale) or matrix.scale.min() <= 0:
            raise ModelInvalidError(f"matrix {name}: expected int8 from -127 and positive float32 scales")
        if matrix.bias is not None and not _is_sound(matrix.bias):
            raise ModelInvalidError(f"matrix {name}: expected a bias of finite float32 numbers")
    for name in vectors:
        vector = parameters.vectors.get(name)
        shape = tensor_shape(spec, name if name.endswith(".bias") else f"{name}.weight")
        if vector is None or vector.shape != shape or not _is_sound(vector):
            raise ModelInvalidError(
                f"tensor {name}: expected {shape} finite float32 numbers, "
                f"found {'none' if vector is None else f'{vector.dtype} {vector.shape}'}"
            )


def _is_sound(array: NDArray[Any]) -> bool:
    return array.dtype == np.float32 and bool(np.isfinite(array).all())


def _expected_names(spec: ModelSpec) -> tuple[list[str], list[str]]:
    """The matrices and vectors that a transformer of this spec reads."""
    matrices = ["embed"] if spec.tied_head else ["embed", "head"]
    matrices += [f"ngram{i + 2}" for i in range(spec.ngrams.tables if spec.ngrams else 0)]
    norms = ["final_norm"]
    kinds = ["q", "k", "v", "o", "up", "down"] + ["gate"] * (spec.mlp == "gated")
    layer_norms = ["attention_norm", "mlp_norm"]
    layer_norms += ["post_attention_norm", "post_mlp_norm"] * spec.sandwich_norms
    for layer in range(spec.n_layers):
        matrices += [f"layers.{layer}.{kind}" for kind in kinds]
        norms += [f"layers.{layer}.{norm}" for norm in layer_norms]
    vectors = norms + [f"{norm}.bias" for norm in norms] * (spec.norm == "layer")
    vectors += [f"layers.{layer}.{side}_norm" for layer in range(spec.n_layers) for side in "qk"] * spec.qk_norm
    return matrices, vectors + ["positions"] * spec.learned_positions
