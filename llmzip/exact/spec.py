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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llmzip.errors import ModelInvalidError
from llmzip.exact.spec_checks import (
    check_boolean,
    check_integer,
    check_positive,
    check_type,
    check_word,
    fields_of,
    invalid,
    tuple_of,
)

MAX_WINDOW = 2048
MAX_NGRAM_TABLES = 3
MAX_SIZE = (1 << 24) - 1
# Units of F, the amount by which a token is forgotten, in a nat; and the greatest cutoff in them.
SELECTION_STEPS = 1024
MAX_CUTOFF = 1 << 19

_Scaling = Literal["linear", "llama3"]
_Norm = Literal["rms", "layer"]
_Mlp = Literal["gated", "plain"]
_Activation = Literal["silu", "gelu_tanh", "gelu", "relu2"]


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched: `linear` (all by `factor`) or `llama3` (low ones)."""

    kind: _Scaling
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192

    def __post_init__(self) -> None:
        check_word("rotary_scaling kind", self.kind, _Scaling)
        for name in ("factor", "low_frequency_factor", "high_frequency_factor"):
            check_positive(f"rotary_scaling {name}", getattr(self, name))
        check_integer("rotary_scaling original_positions", self.original_positions, 1, MAX_SIZE)


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
        check_integer("selection cutoff", self.cutoff, 1, MAX_CUTOFF)
        check_type("selection budgets", self.budgets, tuple)
        for layer, budget in enumerate(self.budgets):
            check_integer(f"selection budget of layer {layer}", budget, 0, MAX_SIZE)
        check_boolean("selection protect_first", self.protect_first)
        check_boolean("selection mask_self", self.mask_self)

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
        check_integer("ngrams tables", self.tables, 1, MAX_NGRAM_TABLES)
        check_integer("ngrams rows", self.rows, 2, 1 << 23)
        if self.rows & (self.rows - 1):
            raise invalid("ngrams rows", "be a power of two", self.rows)


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
    norm: _Norm = "rms"
    norm_eps: float = 1e-5
    mlp: _Mlp = "gated"
    activation: _Activation = "silu"
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
        self._check_sizes()
        self._check_words_and_flags()
        self._check_numbers()
        self._check_attention()
        self._check_local_layers()
        self._check_selection()
        self._check_ngrams()

    def _check_sizes(self) -> None:
        sizes = ("vocab_size", "width", "n_layers", "n_heads", "n_kv_heads", "head_width", "ff_width", "max_positions")
        for name in sizes:
            check_integer(name, getattr(self, name), 1, MAX_SIZE)
        check_integer("bos_id", self.bos_id, 0, self.vocab_size - 1)

    def _check_words_and_flags(self) -> None:
        check_type("family", self.family, str)
        check_word("norm", self.norm, _Norm)
        check_word("mlp", self.mlp, _Mlp)
        check_word("activation", self.activation, _Activation)
        for name in ("learned_positions", "qk_norm", "sandwich_norms", "parallel_residual", "tied_head"):
            check_boolean(name, getattr(self, name))

    def _check_numbers(self) -> None:
        for name in ("norm_eps", "attention_scale", "embedding_scale", "rotary_base", "local_rotary_base"):
            check_positive(name, getattr(self, name))

    def _check_attention(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise invalid("n_heads", f"be a multiple of n_kv_heads, {self.n_kv_heads}", self.n_heads)
        check_integer("rotary_width", self.rotary_width, 0, self.head_width)
        if self.rotary_width % 2:
            raise invalid("rotary_width", "be even", self.rotary_width)
        if self.rotary_scaling is not None:
            check_type("rotary_scaling", self.rotary_scaling, RotaryScaling)

    def _check_local_layers(self) -> None:
        check_type("local_layers", self.local_layers, tuple)
        for layer, local in enumerate(self.local_layers):
            check_boolean(f"local_layers, layer {layer},", local)
        check_integer("local_window", self.local_window, 1 if self.local_layers else 0, MAX_SIZE)
        if self.local_layers and len(self.local_layers) != self.n_layers:
            raise invalid("local_layers", f"have {self.n_layers} entries or none", len(self.local_layers))

    def _check_selection(self) -> None:
        if self.selection is None:
            return
        check_type("selection", self.selection, Selection)
        if len(self.selection.budgets) not in (0, self.n_layers):
            raise invalid("selection budgets", f"have {self.n_layers} entries or none", len(self.selection.budgets))
        if self.local_layers:
            raise invalid("selection", "be without local_layers", self.local_layers)

    def _check_ngrams(self) -> None:
        if self.ngrams is None:
            return
        check_type("ngrams", self.ngrams, Ngrams)
        if self.width % self.ngrams.tables:
            raise invalid("width", f"be a multiple of the tables of ngrams, {self.ngrams.tables}", self.width)

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
        """The inverse of `to_json`; anything else raises `ModelInvalidError`, by the name of the field.

        A field that has a default may be absent.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelInvalidError(f"model spec: expected JSON, found {error}") from error
        defaults = {field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
        fields = fields_of(cls, "model", found, defaults)
        for name, read in _PARTS.items():
            if name in fields:
                fields[name] = read(fields[name])
        return cls(**fields)


def _read_scaling(value: object) -> RotaryScaling | None:
    return None if value is None else RotaryScaling(**fields_of(RotaryScaling, "rotary_scaling", value))


def _read_selection(value: object) -> Selection:
    fields = fields_of(Selection, "selection", value)
    return Selection(**fields | {"budgets": tuple_of("selection budgets", fields["budgets"])})


_PARTS: dict[str, Callable[[object], object]] = {
    "rotary_scaling": _read_scaling,
    "local_layers": lambda value: tuple_of("local_layers", value),
    "selection": _read_selection,
    "ngrams": lambda value: Ngrams(**fields_of(Ngrams, "ngrams", value)),
}
