from __future__ import annotations

import numpy as np

from bench.float_model import llama_name, window_inputs
from llmzip.windows import Windowing


def test_tensors_get_the_names_of_transformers() -> None:
    """Vectors, matrices of attention and of the MLP, and both ends lie in their modules."""
    names = ["embed.weight", "layers.3.attention_norm.weight", "layers.3.k.weight", "layers.0.down.weight"]
    assert [llama_name(name) for name in [*names, "final_norm.weight", "head.weight"]] == [
        "model.embed_tokens.weight",
        "model.layers.3.input_layernorm.weight",
        "model.layers.3.self_attn.k_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]


def test_windows_see_bos_and_the_overlap() -> None:
    """Each window's input is BOS, the overlap, and its coded tokens but the last."""
    tokens = np.arange(100, 106, dtype=np.int32)
    inputs = [window_inputs(7, tokens, window).tolist() for window in Windowing(4, 2).cover(len(tokens))]
    assert inputs == [[7, 100, 101, 102], [7, 102, 103, 104]]
