from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton")
# A compiler with all its passes, some hundred times, by one test that waits for it.
pytestmark = pytest.mark.timeout(1200)

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
def test_kernels_compile_for_a_gpu(case: str, compile_case: Callable[[str], list[dict[str, Any]]]) -> None:
    """The compiler itself takes each launch, for an H100, within its shared memory and with few spilled registers."""
    n_kernels, most_spilled = CASES[case]
    compiled = compile_case(case)
    assert len({(facts["module"], facts["kernel"]) for facts in compiled}) == n_kernels
    assert max(facts["shared"] for facts in compiled) <= SHARED_MEMORY
    assert max(facts["STACK"] for facts in compiled) <= most_spilled, compiled
