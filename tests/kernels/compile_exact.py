# ruff: noqa: T201, TID253
"""Compiles the kernels of the exact arithmetic for a GPU that is not there; without TRITON_INTERPRET.

Models of several kinds run a prefill and a step whose launches Triton's own launcher compiles for an H100, with the
types, divisors and constants that it finds, and leaves out. Writes one JSON object: by kernel pairs of PTX and SASS.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from llmzip.exact.cuda import CudaBackend
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.exact.transformer import Parameters, Segment, Transformer
from llmzip_kernels import activation, heads, launching, norm
from llmzip_kernels import quantise as quantising


class _NoDevice:
    """A driver that knows what to compile for, and can do nothing else."""

    def get_current_device(self) -> int:
        """The first one."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """The default one."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """Compute capability 9.0, 32 threads a warp."""
        return GPUTarget("cuda", 90, 32)


def record() -> dict[str, list[tuple[str, str]]]:
    """From now on launches compile and no more; PTX without comments, and SASS, by kernel and way of launching."""
    found: dict[str, list[tuple[str, str]]] = {}

    def compile_only(self: Any, grid: tuple[int, ...]) -> Any:
        assert all(isinstance(n, int) and n > 0 for n in grid), grid

        def launch(*args: Any, **options: Any) -> None:
            kernel = self.run(*args, grid=grid, warmup=True, **options)
            ptx = re.sub(r"//.*", "", kernel.asm["ptx"])
            if ptx not in [known for known, _ in found.setdefault(self.fn.__name__, [])]:
                found[self.fn.__name__].append((ptx, kernel.asm["sass"]))

        return launch

    driver.set_active(_NoDevice())
    jit.KernelInterface.__getitem__ = compile_only
    return found


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


def main() -> None:
    """Run the models, and the single operations that they do not take."""
    found = record()
    launching.is_interpreted = lambda: False
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
    print(json.dumps(found))


if __name__ == "__main__":
    main()
