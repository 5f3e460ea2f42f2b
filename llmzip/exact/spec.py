"""What a transformer is made of, as data: everything that tells one family from another.

The engine (`llmzip.exact.transformer`) reads a `ModelSpec` and nothing else of a model's origin.
A converter (`llmzip.models.convert`) fills it from a `transformers` configuration or GGUF metadata.

Tensor names that go with a spec, float32 before quantisation (`{i}` is the layer, shapes as
`[rows out, columns in]`; those in brackets are present only where the family has them):

    embed.weight [V, D]                 positions.weight [P, D] (learned positions)
    layers.{i}.attention_norm.weight    [.bias]   [D]
    layers.{i}.q.weight [H*K, D]  k.weight, v.weight [Hk*K, D]  o.weight [D, H*K]   [.bias]
    layers.{i}.q_norm.weight, k_norm.weight [K]            (qk_norm)
    layers.{i}.post_attention_norm.weight [D]              (sandwich_norms)
    layers.{i}.mlp_norm.weight          [.bias]   [D]
    layers.{i}.gate.weight [F, D]                          (gated MLP)
    layers.{i}.up.weight [F, D]   down.weight [D, F]        [.bias]
    layers.{i}.post_mlp_norm.weight [D]                    (sandwich_norms)
    final_norm.weight [D] [.bias]       head.weight [V, D] (absent when the head is tied)
    ngram{n}.weight [rows, D / tables], n = 2, 3, ...      (ngrams)
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Literal

from llmzip.errors import ModelInvalidError

MAX_WINDOW = 2048
MAX_NGRAM_TABLES = 3
# Units of F, the amount by which a token is forgotten, in a nat; and the greatest cutoff in them.
SELECTION_STEPS = 1024
MAX_CUTOFF = 1 << 19


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched: `linear` (all by `factor`) or `llama3` (low ones)."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class Selection:
    """Selective attention: head 0 of a layer decides what all its heads forget. ARITHMETIC.md, section 4.8.

    Attributes:
        cutoff: F, in units of 1/1024 nat, from which on a token is seen no more.
        budgets: for each layer the most tokens that a query sees, 0 for no limit; empty means none anywhere.
        protect_first: position 0 of a window is never forgotten.
        mask_self: what a query selects at its own position counts too.
    """

    cutoff: int
    budgets: tuple[int, ...] = ()
    protect_first: bool = True
    mask_self: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.cutoff <= MAX_CUTOFF:
            raise ModelInvalidError(f"model spec: selection cutoff must be in 1..{MAX_CUTOFF}, found {self.cutoff}")
        if any(budget < 0 for budget in self.budgets):
            raise ModelInvalidError(f"model spec: selection budgets must not be negative, found {self.budgets}")

    def budget(self, layer: int) -> int:
        """The most tokens that a query of `layer` sees, 0 for no limit."""
        return self.budgets[layer] if self.budgets else 0


@dataclass(frozen=True)
class Ngrams:
    """Embeddings of runs of 2, 3, ... tokens, found by a hash. ARITHMETIC.md, section 6.1.

    Attributes:
        tables: how many lengths of runs.
        rows: of each table, a power of two.
    """

    tables: int
    rows: int

    def __post_init__(self) -> None:
        if not 1 <= self.tables <= MAX_NGRAM_TABLES or self.rows & (self.rows - 1) or not 2 <= self.rows < 2**24:
            raise ModelInvalidError(
                f"model spec: ngrams must have 1..{MAX_NGRAM_TABLES} tables of a power of two rows, "
                f"found {self.tables} of {self.rows}"
            )


@dataclass(frozen=True)
class ModelSpec:
    """One decoder-only transformer.

    Attributes:
        family: name of the converter that made it, for people only.
        vocab_size, width, n_layers, n_heads, n_kv_heads, head_width, ff_width: V, D, L, H, Hk, K, F.
        max_positions: longest window that the model was trained for.
        bos_id: the token that every window begins with.
        norm: `rms` or `layer` (with mean and bias); weights are final (Gemma's `1 + w` is folded in).
        mlp: `gated` (activation(gate) * up) or `plain` (activation(up)).
        activation: `silu`, `gelu_tanh`, `gelu` (the error function itself) or `relu2` (ReLU squared).
        attention_scale: what q.k is multiplied by, usually K ** -0.5.
        embedding_scale: what an embedding row is multiplied by (Gemma: sqrt(D)), else 1.
        rotary_width: how many leading channels of a head are rotated; 0 for learned positions.
        rotary_base, rotary_scaling: of global layers; `local_rotary_base` of local layers (unscaled).
        learned_positions: whether `positions.weight` is added to the embedding.
        qk_norm: an RMS norm over each query and key head before the rotation.
        sandwich_norms: a norm after attention and after the MLP too, before the residual sum.
        parallel_residual: attention and MLP both read the block's input (GPT-NeoX).
        tied_head: the output matrix is the embedding matrix.
        local_window: how many latest positions a local layer sees, itself included.
        local_layers: one boolean a layer; empty means that all are global.
        selection: selective attention in all layers, or None.
        ngrams: embeddings of runs of tokens beside those of single ones, or None.
    """

    family: str
    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    ff_width: int
    max_positions: int
    bos_id: int
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    mlp: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "gelu_tanh", "gelu", "relu2"] = "silu"
    attention_scale: float = 0.125
    embedding_scale: float = 1.0
    rotary_width: int = 0
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    local_rotary_base: float = 10000.0
    learned_positions: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    parallel_residual: bool = False
    tied_head: bool = True
    local_window: int = 0
    local_layers: tuple[bool, ...] = ()
    selection: Selection | None = None
    ngrams: Ngrams | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "width", "n_layers", "n_heads", "n_kv_heads", "head_width", "ff_width", "max_positions")
        for name in sizes:
            if not 1 <= getattr(self, name) < 2**24:
                raise ModelInvalidError(f"model spec: {name} must be in 1..2**24-1, found {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ModelInvalidError(
                f"model spec: n_heads must be a multiple of n_kv_heads, found {self.n_heads} and {self.n_kv_heads}"
            )
        if not 0 <= self.bos_id < self.vocab_size:
            raise ModelInvalidError(f"model spec: bos_id must be below {self.vocab_size}, found {self.bos_id}")
        if self.rotary_width % 2 or not 0 <= self.rotary_width <= self.head_width:
            raise ModelInvalidError(
                f"model spec: rotary_width must be even and at most {self.head_width}, found {self.rotary_width}"
            )
        if self.local_layers and (len(self.local_layers) != self.n_layers or self.local_window < 1):
            raise ModelInvalidError(
                f"model spec: local_layers must have {self.n_layers} entries and a window, "
                f"found {len(self.local_layers)} and window {self.local_window}"
            )
        if self.selection and self.selection.budgets and len(self.selection.budgets) != self.n_layers:
            raise ModelInvalidError(
                f"model spec: selection budgets must have {self.n_layers} entries or none, "
                f"found {len(self.selection.budgets)}"
            )
        if self.selection and self.local_layers:
            raise ModelInvalidError("model spec: expected selection or local_layers, found both")
        if self.ngrams and self.width % self.ngrams.tables:
            raise ModelInvalidError(
                f"model spec: width must be a multiple of the n-gram tables, "
                f"found {self.width} and {self.ngrams.tables}"
            )
        for name in ("norm_eps", "attention_scale", "embedding_scale", "rotary_base", "local_rotary_base"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ModelInvalidError(f"model spec: {name} must be positive and finite, found {value}")

    def is_local(self, layer: int) -> bool:
        """Whether `layer` sees only the latest `local_window` positions."""
        return bool(self.local_layers) and self.local_layers[layer]

    def to_json(self) -> str:
        """The canonical text: keys sorted, no spaces, so that equal specs hash equally.

        `selection` and `ngrams` are left out of a model that has none, so that the ids of models converted before
        there were any stay what they are.
        """
        fields = dataclasses.asdict(self)
        for name in ("selection", "ngrams"):
            if fields[name] is None:
                del fields[name]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The inverse of `to_json`; unknown or missing keys raise `ModelInvalidError`."""
        try:
            fields = json.loads(text)
            scaling = fields.pop("rotary_scaling", None)
            local_layers = tuple(bool(flag) for flag in fields.pop("local_layers", ()))
            selection, ngrams = fields.pop("selection", None), fields.pop("ngrams", None)
            if selection:
                selection["budgets"] = tuple(selection["budgets"])
            return cls(
                **fields,
                selection=Selection(**selection) if selection else None,
                ngrams=Ngrams(**ngrams) if ngrams else None,
                rotary_scaling=RotaryScaling(**scaling) if scaling else None,
                local_layers=local_layers,
            )
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise ModelInvalidError(
                f"model spec: expected a JSON object of ModelSpec's fields, found {error}"
            ) from error
