# ruff: noqa: T201, TID253
"""Compiles kernels for a GPU that is not there: `python training_launches.py CASE`, without TRITON_INTERPRET.

A case runs host functions, whose launches are compiled as they would be on an H100 and not run. One JSON object a line
tells what was compiled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class AbsentDriver:
    """Says that there is an H100."""

    def get_current_target(self) -> Any:
        """Compute capability 9.0, 32 threads a warp."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return device


def resources(cubin: bytes) -> dict[str, int]:
    """Registers (`REG`) and bytes of local memory (`STACK`) of each thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_CUOBJDUMP), "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [line] = [line for line in told.splitlines() if "REG:" in line]
    pairs = [part.split(":") for part in line.split()]
    return {name: int(value) for name, value in pairs if name in ("REG", "STACK")}


def compile_only(run: Callable[..., Any]) -> Callable[..., None]:
    """A way to launch that compiles, and tells what came of it."""

    def compiled(kernel: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        del warmup
        binary = run(kernel, *arguments, warmup=True, **options)
        dtype = next(str(x.dtype) for x in arguments if isinstance(x, torch.Tensor))
        facts = {"kernel": f"{kernel.__module__}.{kernel.__name__}", "dtype": dtype, "shared": binary.metadata.shared}
        print(json.dumps(facts | resources(binary.asm["cubin"])), flush=True)

    return compiled


def attention(dtype: torch.dtype, width: int) -> None:
    """Selective attention for training, forward and backward."""
    from llmzip_kernels.training_selective_attention import Selection, selective_attention

    q, k, v = (torch.zeros(1, n, 130, width, dtype=dtype, requires_grad=True) for n in (4, 2, 2))
    y, _ = selective_attention(q, k, v, Selection(0.125))
    y.sum().backward()  # type: ignore[no-untyped-call]


def scans(dtype: torch.dtype) -> None:
    """Cumulative sums and protection, all methods, forward and backward."""
    from llmzip_kernels import scan_cumulative_sum, scan_protection

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


CASES: dict[str, Callable[[], None]] = {
    "attention-float32": lambda: attention(torch.float32, 64),
    "attention-float32-wide": lambda: attention(torch.float32, 128),
    "attention-tf32": tf32,
    "attention-float64": lambda: attention(torch.float64, 64),
    "attention-bfloat16": lambda: attention(torch.bfloat16, 64),
    "scans-float32": lambda: scans(torch.float32),
    "scans-float64": lambda: scans(torch.float64),
    "attention-bfloat16-wide": lambda: attention(torch.bfloat16, 128),
}

if __name__ == "__main__":
    driver.set_active(AbsentDriver())
    JITFunction.run = compile_only(JITFunction.run)
    CASES[sys.argv[1]]()
