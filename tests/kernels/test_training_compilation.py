from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of an H100, for one program: bytes.
SHARED_MEMORY = 227 * 1024
# How many kernels, and bytes of local memory that a thread may need for what registers cannot hold: a lot is slow.
CASES = {
    "attention-float32": (4, 400),
    "attention-bfloat16": (4, 600),
    "scans-float32": (8, 0),
    "attention-float32-wide": (4, 2100),
    "attention-float64": (4, 300),
    "attention-bfloat16-wide": (4, 100),
    "attention-tf32": (4, 0),
    "scans-float64": (8, 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kernels_compile_for_a_gpu(case: str, tmp_path: Path) -> None:
    """The compiler itself takes each launch, for an H100, within its shared memory and with few spilled registers."""
    pytest.importorskip("triton")
    n_kernels, most_spilled = CASES[case]
    command = [sys.executable, str(Path(__file__).with_name("training_launches.py")), case]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({facts["kernel"] for facts in compiled}) == n_kernels
    assert max(facts["shared"] for facts in compiled) <= SHARED_MEMORY
    assert max(facts["STACK"] for facts in compiled) <= most_spilled, compiled
