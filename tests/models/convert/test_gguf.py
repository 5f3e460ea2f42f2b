from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.models.convert import FloatModel, load_float_model

PARTS = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "post_attention_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "post_mlp_norm": "post_ffw_norm",
    "embed": "token_embd",
    "positions": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
}
FUSED = ("gptneox", "gpt2")
CASES = {
    "llama": "llama",
    "llama-untied": "llama",
    "llama-linear": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt_neox": "gptneox",
    "gpt2": "gpt2",
    "gemma3": "gemma3",
}
TOKENS = ["<|endoftext|>", "a", "b", "ab", *(f"t{i}" for i in range(380))]
Change = Callable[[Any], None]


def _write(model: FloatModel, architecture: str, path: Path, change: Change = lambda _: None) -> None:
    """The model as llama.cpp's converter lays it out."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    _write_metadata(model, writer, architecture)
    for name, tensor in _tensors(model, architecture).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(model: FloatModel, writer: Any, architecture: str) -> None:
    spec = model.spec
    writer.add_block_count(spec.n_layers)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.width)
    writer.add_feed_forward_length(spec.ff_width)
    writer.add_head_count(spec.n_heads)
    writer.add_license("mit")
    if architecture not in FUSED:
        writer.add_head_count_kv(spec.n_kv_heads)
        writer.add_key_length(spec.head_width)
    if spec.norm == "rms":
        writer.add_layer_norm_rms_eps(spec.norm_eps)
    else:
        writer.add_layer_norm_eps(spec.norm_eps)
    if spec.rotary_width:
        writer.add_rope_dimension_count(spec.rotary_width)
        writer.add_rope_freq_base(spec.rotary_base)
    if spec.rotary_scaling is not None:
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(spec.rotary_scaling.factor)
    if spec.local_layers:
        writer.add_sliding_window(spec.local_window)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["a b"])


def _tensors(model: FloatModel, architecture: str) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in model.tensors.items():
        at, part, kind = ["", *name.replace("layers.", "blk.").rsplit(".", 2)][-3:]
        theirs = PARTS[part.split(".")[-1]]
        if architecture == "llama" and part in ("q", "k"):
            heads = tensor.reshape(-1, 2, model.spec.head_width // 2, tensor.shape[1])
            tensor = heads.swapaxes(1, 2).reshape(tensor.shape)
        found[f"{at}.{theirs}.{kind}".lstrip(".")] = tensor
    if architecture in FUSED:
        for i in range(model.spec.n_layers):
            for kind in ("weight", "bias"):
                thirds = [found.pop(f"blk.{i}.attn_{part}.{kind}") for part in "qkv"]
                found[f"blk.{i}.attn_qkv.{kind}"] = np.concatenate(thirds)
    return found


@pytest.mark.parametrize(("name", "architecture"), CASES.items(), ids=CASES.keys())
def test_a_gguf_file_gives_the_spec_and_tensors_of_its_folder(
    name: str, architecture: str, tmp_path: Path, make_tiny: Any
) -> None:
    """Both ways of publishing a model end in the same float model."""
    changes = {"query_pre_attn_scalar": 16, "layer_types": ["sliding_attention"] * 3} if name == "gemma3" else {}
    rotary = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
    }
    make_tiny(name, tmp_path, **(changes | {"rope_parameters": rotary} if changes else {}))
    expected = load_float_model(tmp_path)
    _write(expected, architecture, tmp_path / "tiny.gguf")
    found = load_float_model(tmp_path / "tiny.gguf")
    assert found.spec == expected.spec
    assert sorted(found.tensors) == sorted(expected.tensors)
    assert all(np.array_equal(found.tensors[key], tensor) for key, tensor in expected.tensors.items())
    assert (found.licence, found.source) == ("mit", "tiny.gguf")


def test_the_separator_of_documents_begins_windows(tmp_path: Path, make_tiny: Any) -> None:
    """A chat model's own mark is not what stood before plain text in training."""
    make_tiny("llama", tmp_path)
    _write(load_float_model(tmp_path), "llama", tmp_path / "a.gguf", lambda writer: writer.add_bos_token_id(7))
    assert load_float_model(tmp_path / "a.gguf").spec.bos_id == 0


def test_quantised_tensors_are_read_as_what_they_stand_for(tmp_path: Path, make_tiny: Any) -> None:
    """A Q8_0 matrix gives its dequantised values."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    make_tiny("llama", tmp_path)
    head = np.linspace(-1, 1, 384 * 32, dtype=np.float32).reshape(384, 32)
    packed = quantize(head, GGMLQuantizationType.Q8_0)

    def change(writer: Any) -> None:
        writer.add_tensor("output.weight", packed, raw_dtype=GGMLQuantizationType.Q8_0)

    _write(load_float_model(tmp_path), "llama", tmp_path / "a.gguf", change)
    model = load_float_model(tmp_path / "a.gguf")
    assert not model.spec.tied_head
    assert np.array_equal(model.tensors["head.weight"], dequantize(packed, GGMLQuantizationType.Q8_0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda writer: writer.add_rope_dimension_count(4), "rope.dimension_count: expected 8, found 4"),
        (lambda writer: writer.add_expert_count(4), "expert_count: expected none, found 4"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.full(4, 2, np.float32)), "rope_freqs"),
        (lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.zeros(32, np.float32)), r"q\.bias'\] too many"),
        (lambda writer: writer.add_tokenizer_pre("tekken"), r"tokenizer\.ggml\.pre: .*found 'tekken'"),
    ],
)
def test_unsupported_metadata_is_refused_by_name(change: Change, message: str, tmp_path: Path, make_tiny: Any) -> None:
    """Nothing that changes the computation is overlooked."""
    make_tiny("llama", tmp_path)

    def again(writer: Any) -> None:
        for key in (f"{writer.arch}.rope.dimension_count", "tokenizer.ggml.pre"):
            writer.kv_data[0].pop(key)
        change(writer)

    _write(load_float_model(tmp_path), "llama", tmp_path / "a.gguf", again)
    with pytest.raises(ModelInvalidError, match=message):
        load_float_model(tmp_path / "a.gguf")


def test_other_architectures_and_other_files_are_refused(tmp_path: Path, make_tiny: Any) -> None:
    """A file that is no GGUF, a cut one, and one of an unknown architecture."""
    make_tiny("llama", tmp_path)
    _write(load_float_model(tmp_path), "mamba", tmp_path / "a.gguf")
    with pytest.raises(ModelInvalidError, match=r"general\.architecture: expected one of llama"):
        load_float_model(tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    for content in (b"", b"GG", b"no model at all", whole[:100], whole[:5000], whole[:-100]):
        (tmp_path / "b.gguf").write_bytes(content)
        with pytest.raises(ModelInvalidError, match="expected a GGUF file"):
            load_float_model(tmp_path / "b.gguf")
