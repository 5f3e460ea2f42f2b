"""The same windows in float32: what the exact engine is measured against.

With a source (a Hugging Face folder or a GGUF file) the model is the real one, and its own cost of the text
says what exactness costs. With an artefact it has the weights that the exact engine multiplies with, and needs nothing
that a user has not. Without either, it is a Llama of the same sizes with random weights, which takes as long.
Artefacts and models of the trainer's own family run in the trainer's code, all others in that of `transformers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.own_model import OwnModel
from llmzip.codec import Tokens
from llmzip.errors import ConfigError
from llmzip.exact.spec import ModelSpec
from llmzip.models.artefact import Artefact
from llmzip.models.convert import load_float_model
from llmzip.windows import Window, Windowing

OWN_FAMILY = "llmzip_selective"
# The log of probabilities is taken over this many rows at once, to bound memory.
_ROWS = 128
_LLAMA_PARTS = {
    "embed": "embed_tokens",
    "final_norm": "norm",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    **{part: f"self_attn.{part}_proj" for part in "qkvo"},
    **{part: f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}


class FloatModel:
    """A causal language model, float32, on all cores.

    Args:
        spec: of the exact model.
        source: the model that it was made of, or the artefact itself; None means random weights.
    """

    def __init__(self, spec: ModelSpec, source: Path | Artefact | None, n_threads: int) -> None:
        import torch

        torch.set_num_threads(n_threads)
        self._bos = spec.bos_id
        self._model = _float_model(spec, source)

    def forward(self, chunks: Sequence[Tokens], windowing: Windowing) -> None:
        """The logits of all coded tokens, window by window, as the encoder needs them."""
        for _ in self._windows(chunks, windowing):
            pass

    def next_logits(self, tokens: Tokens) -> Any:
        """The logits `[V]` of the token that follows these, by a pass over all of them."""
        import torch

        ids = torch.from_numpy(np.concatenate([[self._bos], tokens]).astype(np.int64))[None]
        with torch.inference_mode():
            return self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, 0]

    def cost_bits(self, chunks: Sequence[Tokens], windowing: Windowing) -> float:
        """Sum over all tokens of -log2 of their probability: what an ideal coder would write."""
        import torch

        bits = 0.0
        for logits, targets in self._windows(chunks, windowing):
            for first in range(0, len(targets), _ROWS):
                rows = logits[first : first + _ROWS].double()
                wanted = torch.from_numpy(targets[first : first + _ROWS].astype(np.int64))
                bits += float(torch.nn.functional.cross_entropy(rows, wanted, reduction="sum")) / math.log(2)
        return bits

    def _windows(self, chunks: Sequence[Tokens], windowing: Windowing) -> Iterator[tuple[Any, NDArray[np.int32]]]:
        """Logits `[T, V]` and targets `[T]` of the coded tokens of each window."""
        import torch

        for tokens in chunks:
            for window in windowing.cover(len(tokens)):
                ids = torch.from_numpy(window_inputs(self._bos, tokens, window).astype(np.int64))[None]
                n_coded = window.stop - window.coded
                with torch.inference_mode():
                    logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=n_coded).logits[0]
                yield logits, tokens[window.coded : window.stop]


def window_inputs(bos: int, tokens: Tokens, window: Window) -> Tokens:
    """What the model sees of a window: BOS and all tokens but the last."""
    return np.concatenate([np.array([bos], dtype=np.int32), tokens[window.start : window.stop - 1]])


def _float_model(spec: ModelSpec, source: Path | Artefact | None) -> Any:
    if spec.family == OWN_FAMILY or isinstance(source, Artefact):
        return OwnModel(spec, source)
    return _llama(spec) if source is None else _pretrained(spec, source)


def _pretrained(spec: ModelSpec, source: Path) -> Any:
    """A folder as `transformers` reads it; a GGUF file, for which it wants more packages, by our converter."""
    import torch
    from transformers import AutoModelForCausalLM

    if source.is_dir():
        return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, local_files_only=True).eval()
    found = load_float_model(source)
    model = _llama(found.spec)
    if found.spec != spec:
        raise ConfigError(f"float model {source}: expected the spec of the artefact, found that of another model")
    state = {llama_name(name): torch.tensor(tensor) for name, tensor in found.tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if spec.tied_head else set()
    if unexpected or set(missing) - tied:
        raise ConfigError(f"float model {source}: expected a Llama's tensors, found others: {[*missing, *unexpected]}")
    return model


def _llama(spec: ModelSpec) -> Any:
    """A Llama of these sizes with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    others = (spec.qk_norm, spec.sandwich_norms, spec.local_layers, spec.rotary_scaling, spec.parallel_residual)
    if spec.mlp != "gated" or spec.norm != "rms" or not spec.rotary_width or any(others):
        raise ConfigError(f"float model: expected one built like Llama, found {spec.family}; pass --float FOLDER")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.width,
        intermediate_size=spec.ff_width,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=spec.n_heads,
        num_key_value_heads=spec.n_kv_heads,
        head_dim=spec.head_width,
        max_position_embeddings=spec.max_positions,
        rms_norm_eps=spec.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rotary_base},
        tie_word_embeddings=spec.tied_head,
    )
    return LlamaForCausalLM(config).float().eval()


def llama_name(name: str) -> str:
    """What `transformers` calls a tensor of ours."""
    if name == "head.weight":
        return "lm_head.weight"
    parts = name.split(".")
    return ".".join(["model", *parts[:-2], _LLAMA_PARTS.get(parts[-2], parts[-2]), parts[-1]])
