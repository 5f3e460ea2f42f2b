# ruff: noqa: TID253
"""The float Llama that is trained here; imports torch, so it is loaded lazily as a whole.

Pre-norm blocks, rotary positions in the half-split pairing, SwiGLU, grouped key and value heads,
one matrix for embedding and output, no biases. Parameter names are those of `LlamaForCausalLM`
below `model.`, so that export is a renaming.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmzip.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model; `context` is the number of tokens in a training window."""

    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ffn_width: int
    context: int
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built."""
        if self.width % (2 * self.n_heads):
            raise ConfigError(f"model: expected width divisible by 2 * n_heads, found {self.width} and {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"model: expected n_heads divisible by n_kv_heads, found {self.n_heads}, {self.n_kv_heads}"
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.n_heads


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
    """Causal self-attention with rotary positions and grouped key and value heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        kv_width = config.n_kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix the tokens of `x` `[B, T, D]`, each with those before it; angles `[T, K]`."""
        B, T, D = x.shape
        config = self.config
        q = self.q_proj(x).view(B, T, config.n_heads, -1).transpose(1, 2)
        k = self.k_proj(x).view(B, T, config.n_kv_heads, -1).transpose(1, 2)
        v = self.v_proj(x).view(B, T, config.n_kv_heads, -1).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = config.n_heads // config.n_kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: Tensor = self.o_proj(y.transpose(1, 2).reshape(B, T, D))
        return mixed


class FeedForward(nn.Module):
    """SwiGLU: the up projection gated by the SiLU of the gate projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down_proj = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map each row of `x` `[..., D]` by itself."""
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on the normalised residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Add what the layer has to say to the residual stream `x` `[B, T, D]`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Llama(nn.Module):
    """The language model: token ids `[B, T]` to logits `[B, T, V]`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RmsNorm(config.width, config.norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token at every position; at most `context` positions."""
        T = ids.shape[1]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:T], self.sin[:T])  # type: ignore[index]
        return functional.linear(self.norm(x), self.embed_tokens.weight)

    def _initialise(self) -> None:
        """Small embeddings, matrices that keep the variance, and every block the identity at first."""
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif name.endswith("_proj.weight"):
                nn.init.normal_(parameter, std=0.5 * parameter.shape[1] ** -0.5)


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
