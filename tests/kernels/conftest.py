# ruff: noqa: TID253
"""Kernels run through Triton's interpreter where there is no GPU; it must be chosen before Triton is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def compile_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """What `compile_kernels.py` tells of the kernels of a case, by a process without the interpreter."""

    def compile_case(case: str) -> list[dict[str, Any]]:
        command = [sys.executable, str(Path(__file__).with_name("compile_kernels.py")), case]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return compile_case
