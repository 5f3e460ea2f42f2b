# ruff: noqa: TID253
"""The float language model that is trained here; imports torch, so it is loaded lazily as a whole.

Pre-norm blocks, rotary positions in the half-split pairing, plain or selective attention with grouped
key and value heads, a gated or plain MLP, one matrix for embedding and output, no biases, and tables of
embeddings for runs of two and more tokens where the configuration asks for them. Parameter names are those
of `LlamaForCausalLM` below `model.`, so that export is a renaming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.errors import ConfigError
from llmzip.exact.spec import MAX_NGRAM_TABLES, MAX_SIZE
from llmzip_training.config import expect_at_least, expect_one_of, expect_positive
from llmzip_training.ngrams import NgramEmbedding
from llmzip_training.selection import Forgotten, SelectionRules, fused_attention, runs_kernels, selective_attention
from llmzip_training.tokenizer import MAX_VOCAB_SIZE


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model.

    Attributes:
        vocab_size, width, n_layers, n_heads, n_kv_heads, ffn_width: sizes.
        context: tokens in the longest window.
        mlp: `gated` (activation(gate) * up) or `plain` (activation(up)).
        activation: `silu`, or `relu2`, the square of ReLU.
        attention: `plain`, or `selective`, head 0 of each layer selecting.
        protect_first, mask_self: the rules of selection, see `SelectionRules`.
        ngram_tables: tables of embeddings for runs of 2, 3, ... tokens; 0 for none.
        ngram_rows: rows of each such table, a power of two.
        head_width: of one attention head; 0 is replaced by width / n_heads.
    """

    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_width: int
    context: int
    mlp: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "relu2"] = "silu"
    attention: Literal["plain", "selective"] = "plain"
    protect_first: bool = True
    mask_self: bool = False
    ngram_tables: int = 0
    ngram_rows: int = 0
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5
    head_width: int = 0

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built, or that the exact engine refuses."""
        for name in ("vocab_size", "width", "n_layers", "n_heads", "n_kv_heads", "ffn_width", "context"):
            _expect_size(name, getattr(self, name), 1)
        for name in ("head_width", "ngram_tables", "ngram_rows"):
            _expect_size(name, getattr(self, name), 0)
        for name in ("rotary_base", "norm_eps"):
            expect_positive(f"model.{name}", getattr(self, name))
        self._set_head_width()
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise ConfigError(f"model: expected vocab_size from 1 to {MAX_VOCAB_SIZE}, found {self.vocab_size}")
        expect_one_of("model.mlp", self.mlp, ("gated", "plain"))
        expect_one_of("model.activation", self.activation, ("silu", "relu2"))
        expect_one_of("model.attention", self.attention, ("plain", "selective"))
        if self.ngram_tables:
            self._expect_ngrams()

    def _set_head_width(self) -> None:
        if not self.head_width:
            if self.width % (2 * self.n_heads):
                raise ConfigError(
                    f"model: expected width divisible by 2 * n_heads, found {self.width} and {self.n_heads}"
                )
            object.__setattr__(self, "head_width", self.width // self.n_heads)
        if self.head_width % 2:
            raise ConfigError(f"model: expected head_width even, found {self.head_width}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"model: expected n_heads divisible by n_kv_heads, found {self.n_heads}, {self.n_kv_heads}"
            )

    def _expect_ngrams(self) -> None:
        if self.ngram_tables > MAX_NGRAM_TABLES:
            raise ConfigError(f"model: expected ngram_tables from 0 to {MAX_NGRAM_TABLES}, found {self.ngram_tables}")
        if self.ngram_rows < 2 or self.ngram_rows & (self.ngram_rows - 1):
            raise ConfigError(f"model: expected ngram_rows a power of two from 2 on, found {self.ngram_rows}")
        if self.width % self.ngram_tables:
            raise ConfigError(
                f"model: expected width divisible by ngram_tables, found {self.width} and {self.ngram_tables}"
            )


def _expect_size(name: str, value: int, low: int) -> None:
    expect_at_least(f"model.{name}", value, low)
    if value > MAX_SIZE:
        raise ConfigError(f"model.{name}: expected at most {MAX_SIZE}, found {value}")


EMBEDDING_STD = 0.02


class RmsNorm(nn.Module):
    """Divide each row by its root mean square and scale it by a learned gain."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of `x` `[..., D]`."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key and value heads, plain or selective.

    `rules` may be changed after training, to compare with what a model does without its selection. With `kernels` off,
    selective attention is computed by the eager code on a GPU too.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.rules = SelectionRules(config.protect_first, config.mask_self)
        self.kernels = True
        q_width, kv_width = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, q_width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, config.width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, forgettings: list[list[Tensor] | Forgotten] | None
    ) -> Tensor:
        """Mix the tokens of `x` `[B, T, D]`, each with those before it; angles `[T, K]`.

        A selective layer appends its F, by blocks of queries, to `forgettings`, or what kernels have left of it.
        """
        q, k, v = self.project(x, cos, sin)
        if self.config.attention == "selective":
            attend = fused_attention if self.kernels and runs_kernels(q) else selective_attention
            y, forgetting = attend(q, k, v, self.config.head_width**-0.5, self.rules)
            if forgettings is not None:
                forgettings.append(forgetting)
        else:
            group = self.config.n_heads // self.config.n_kv_heads
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.join(y)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, H, T, K]`, keys and values `[B, Hk, T, K]`; queries and keys are rotated."""
        B, T, _ = x.shape
        config = self.config
        q = self.q_proj(x).view(B, T, config.n_heads, -1).transpose(1, 2)
        k = self.k_proj(x).view(B, T, config.n_kv_heads, -1).transpose(1, 2)
        v = self.v_proj(x).view(B, T, config.n_kv_heads, -1).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def join(self, y: Tensor) -> Tensor:
        """Bring what the heads mixed, `[B, H, T, K]`, back to the width of the model, `[B, T, D]`."""
        joined: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return joined


class FeedForward(nn.Module):
    """The MLP: activation(gate) * up, or activation(up) where it is plain."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn_width, bias=False) if config.mlp == "gated" else None
        self.up_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down_proj = nn.Linear(config.ffn_width, config.width, bias=False)
        self.activation = functional.silu if config.activation == "silu" else relu2

    def forward(self, x: Tensor) -> Tensor:
        """Map each row of `x` `[..., D]` by itself."""
        up = self.up_proj(x)
        y: Tensor = self.down_proj(
            self.activation(up) if self.gate_proj is None else self.activation(self.gate_proj(x)) * up
        )
        return y


def relu2(x: Tensor) -> Tensor:
    """The square of ReLU."""
    return functional.relu(x).square()


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on the normalised residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, forgettings: list[list[Tensor] | Forgotten] | None
    ) -> Tensor:
        """Add what the layer has to say to the residual stream `x` `[B, T, D]`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, forgettings)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class LanguageModel(nn.Module):
    """The language model: token ids `[B, T]` to logits `[B, T, V]`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.embed_ngrams = NgramEmbedding(config.ngram_tables, config.ngram_rows, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RmsNorm(config.width, config.norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def forward(self, ids: Tensor, forgettings: list[list[Tensor] | Forgotten] | None = None) -> Tensor:
        """Logits of the next token at every position; at most `context` positions.

        The F of selective layers are appended to `forgettings` if it is given, see `memory_penalty`.
        """
        T = ids.shape[1]
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:T], self.sin[:T], forgettings)
        return self.predict(x)

    def embed(self, ids: Tensor) -> Tensor:
        """The residual stream `[B, T, D]` at the entry of the first layer."""
        x: Tensor = self.embed_ngrams(ids, self.embed_tokens(ids))
        return x

    def predict(self, x: Tensor) -> Tensor:
        """Logits `[B, T, V]` of the residual stream behind the last layer."""
        return functional.linear(self.norm(x), self.embed_tokens.weight)

    def _initialise(self) -> None:
        """Small embeddings, matrices that keep the variance, and every block the identity at first."""
        for table in (self.embed_tokens, *self.embed_ngrams.tables):
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif name.endswith("_proj.weight"):
                nn.init.normal_(parameter, std=projection_std(parameter.shape[1]))


def use_kernels(model: LanguageModel, kernels: bool) -> None:
    """Let selective layers use kernels where they can, or never."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.kernels = kernels


def projection_std(n_inputs: int) -> float:
    """Standard deviation of the initial weights of a projection."""
    return 0.5 * float(n_inputs**-0.5)


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each `[context, head_width]`, float32.

    Half-split pairing: dimension `i` turns with dimension `i + head_width / 2`, so the angles of
    the first half are repeated in the second.
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), config.rotary_base**-exponents)
    angles = torch.cat((angles, angles), dim=1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of each head `[B, H, T, K]` by the angles of their positions."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
