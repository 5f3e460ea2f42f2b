"""What a measurement was made on: the processor, its cores, and the packages that decide over speed or size."""

from __future__ import annotations

import functools
import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("numpy", "numba", "torch", "transformers", "constriction", "zstandard")


@functools.cache
def device() -> str:
    """Processor, cores that this process may use, and the instructions of the products' inner loop."""
    from llmzip.exact.products import host_instructions

    return f"{_processor()}, {n_cores()} cores, {host_instructions()}"


def device_name(backend: str) -> str:
    """What a backend computes on: that of a GPU with its name."""
    if backend != "cuda":
        return backend
    import torch

    return f"cuda ({torch.cuda.get_device_name()})"


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def versions() -> str:
    """Python and the packages."""
    found = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    return "; ".join([f"python {platform.python_version()}", *found])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
