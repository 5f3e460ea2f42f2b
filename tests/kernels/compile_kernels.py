# ruff: noqa: T201, TID253
"""Compiles kernels for a GPU that is not there: `python compile_kernels.py CASE`, without TRITON_INTERPRET.

A case runs host functions, whose launches Triton's own launcher compiles for an H100, with the types, divisors and
constants that it finds, and leaves out. One JSON object a line tells what was compiled.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from llmzip.exact.cuda import CudaBackend
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.exact.transformer import Parameters, Segment, Transformer
from llmzip_kernels import activation, heads, launching, norm, scan_cumulative_sum, scan_protection
from llmzip_kernels import quantise as quantising
from llmzip_kernels.training_selective_attention import Selection as TrainingSelection
from llmzip_kernels.training_selective_attention import selective_attention

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# What to tell of a compiled kernel, and of what it was launched with.
Tell = Callable[[Any, tuple[Any, ...]], dict[str, Any]]


class _AbsentDriver:
    """Says that there is an H100, and can do nothing else."""

    def get_current_target(self) -> GPUTarget:
        """Compute capability 9.0, 32 threads a warp."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return device


def compile_only(run: Callable[..., Any], tell: Tell) -> Callable[..., None]:
    """A way to launch that compiles, and tells what came of it, once for the same program."""
    told: set[str] = set()

    def compiled(kernel: Any, *arguments: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:
        del warmup
        assert all(isinstance(n, int) and n > 0 for n in grid), grid
        binary = run(kernel, *arguments, grid=grid, warmup=True, **options)
        # Disassembling takes longer than compiling.
        ptx = _without_comments(binary.asm["ptx"])
        if ptx not in told:
            told.add(ptx)
            name = {"module": kernel.__module__, "kernel": kernel.__name__}
            print(json.dumps(name | tell(binary, arguments)), flush=True)

    return compiled


def instructions(binary: Any, _arguments: tuple[Any, ...]) -> dict[str, Any]:
    """PTX without comments, and SASS."""
    return {"ptx": _without_comments(binary.asm["ptx"]), "sass": binary.asm["sass"]}


def _without_comments(ptx: str) -> str:
    return re.sub(r"//.*", "", ptx)


def resources(binary: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The type of its first tensor, shared memory, registers (`REG`) and local memory (`STACK`) of each thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [str(_CUOBJDUMP), "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [line] = [line for line in told.splitlines() if "REG:" in line]
    pairs = [part.split(":") for part in line.split()]
    used = {name: int(value) for name, value in pairs if name in ("REG", "STACK")}
    dtype = next(str(x.dtype) for x in arguments if isinstance(x, torch.Tensor))
    return {"dtype": dtype, "shared": binary.metadata.shared} | used


SIZES: dict[str, Any] = {
    "family": "made", "vocab_size": 499, "n_layers": 2, "head_width": 64, "max_positions": 128, "bos_id": 0,
}  # fmt: skip
SPECS = [
    ModelSpec(
        **SIZES, width=576, n_heads=9, n_kv_heads=3, ff_width=1536, rotary_width=64, qk_norm=True, sandwich_norms=True,
        local_window=32, local_layers=(True, False), activation="gelu_tanh",
    ),
    ModelSpec(
        **SIZES, width=128, n_heads=2, n_kv_heads=2, ff_width=512, norm="layer", mlp="plain", activation="gelu",
        rotary_width=32, learned_positions=True, parallel_residual=True,
    ),
    ModelSpec(
        **SIZES, width=192, n_heads=3, n_kv_heads=1, ff_width=4096, mlp="plain", activation="relu2",
        selection=Selection(4000, (64, 0)), ngrams=Ngrams(3, 64),
    ),
]  # fmt: skip
# Arguments of 1 become constants.
SPECS.append(replace(SPECS[-1], selection=Selection(1, (1, 0))))


def _parameters(spec: ModelSpec) -> Parameters:
    """Zeros of the right shapes; the products of one limb and of two."""
    D, F, K = spec.width, spec.ff_width, spec.head_width
    heads_width, keys_width = spec.n_heads * K, spec.n_kv_heads * K
    shapes = {"embed": (spec.vocab_size, D)}
    shapes |= {f"ngram{n + 2}": (spec.ngrams.rows, D // 3) for n in range(3) if spec.ngrams}
    vectors = {"final_norm": D}
    for i in range(spec.n_layers):
        layer = {"q": (heads_width, D), "k": (keys_width, D), "v": (keys_width, D), "o": (D, heads_width)}
        layer |= {"gate": (F, D), "up": (F, D), "down": (D, F)}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
        norms = ("attention_norm", "mlp_norm", "post_attention_norm", "post_mlp_norm")
        vectors |= {f"layers.{i}.{name}": D for name in norms}
        vectors |= {f"layers.{i}.{name}": K for name in ("q_norm", "k_norm")}
    vectors |= {f"{name}.bias": width for name, width in vectors.items()}
    matrices = {name: _matrix(name, shape, spec.norm == "layer") for name, shape in shapes.items()}
    arrays = {name: np.zeros(width, np.float32) for name, width in vectors.items()}
    return Parameters(matrices, arrays | {"positions": np.zeros((spec.max_positions, D), np.float32)})


def _matrix(name: str, shape: tuple[int, int], bias: bool) -> QuantisedMatrix:
    limit = ONE_LIMB if name.endswith((".k", ".gate")) else TWO_LIMBS
    zeros = np.zeros(shape[0], np.float32)
    return QuantisedMatrix(np.zeros(shape, np.int8), zeros, zeros if bias else None, limit)


def exact() -> None:
    """Models of several kinds, a prefill and a step each, and the single operations that they do not take."""
    launching.device = lambda: torch.device("cpu")
    for module in ("llmzip_kernels.launching", "llmzip.exact.cuda_cache", "llmzip.exact.cuda_model"):
        vars(importlib.import_module(module))["device"] = launching.device
    backend = CudaBackend()
    for spec in SPECS:
        model = Transformer(spec, _parameters(spec), backend)
        cache = model.new_cache(16, 128)
        cache.steer(3, np.zeros((3, spec.width), np.float32))
        tokens = np.zeros(100, np.int32)
        model.hidden(cache, [Segment(3, 0, tokens)])
        rows = np.arange(16, dtype=np.int32)
        hidden = model.step(cache, rows, np.where(rows == 3, 100, 0).astype(np.int32), tokens[:16])
        weights, _ = model.predict(hidden, 23)
        backend.member_frequencies(weights, rows, 23)
    x = torch.zeros(3, 64)
    activation.activate("silu", x, x)
    activation.activate_rows("silu", x, x, ONE_LIMB)
    norm.norm(torch.zeros(3, 1), torch.zeros(1), None, 1e-5)
    quantising.quantise_rows(x, ONE_LIMB)
    heads.rotate(x.reshape(3, 4, 16), heads.Rotation(x, x), torch.zeros(3, dtype=torch.int32))


def attention(dtype: torch.dtype, width: int) -> None:
    """Selective attention for training, forward and backward."""
    q, k, v = (torch.zeros(1, n, 130, width, dtype=dtype, requires_grad=True) for n in (4, 2, 2))
    y, _ = selective_attention(q, k, v, TrainingSelection(0.125))
    y.sum().backward()  # type: ignore[no-untyped-call]


def scans(dtype: torch.dtype) -> None:
    """Cumulative sums and protection, all methods, forward and backward."""
    x = torch.zeros(2, 130, 70, dtype=dtype, requires_grad=True)
    for exclusive in (False, True):
        for how in scan_cumulative_sum.METHODS:
            scan_cumulative_sum.cumulative_sum(x, exclusive=exclusive, method=how).sum().backward()  # type: ignore[no-untyped-call]
        for method in scan_protection.METHODS:
            scan_protection.protect_and_attack(x, x, exclusive, method).sum().backward()  # type: ignore[no-untyped-call]


def tf32() -> None:
    """Attention of float32 with products like those of PyTorch when these are allowed to be rough."""
    torch.set_float32_matmul_precision("high")
    attention(torch.float32, 64)


# What to run, and what to tell of it.
CASES: dict[str, tuple[Callable[[], None], Tell]] = {
    "exact": (exact, instructions),
    "attention-float32": (lambda: attention(torch.float32, 64), resources),
    "attention-float32-wide": (lambda: attention(torch.float32, 128), resources),
    "attention-tf32": (tf32, resources),
    "attention-float64": (lambda: attention(torch.float64, 64), resources),
    "attention-bfloat16": (lambda: attention(torch.bfloat16, 64), resources),
    "attention-bfloat16-wide": (lambda: attention(torch.bfloat16, 128), resources),
    "scans-float32": (lambda: scans(torch.float32), resources),
    "scans-float64": (lambda: scans(torch.float64), resources),
}

if __name__ == "__main__":
    driver.set_active(_AbsentDriver())
    run_case, tell_of_it = CASES[sys.argv[1]]
    JITFunction.run = compile_only(JITFunction.run, tell_of_it)
    run_case()
