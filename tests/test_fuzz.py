from __future__ import annotations

import random
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parent
TARGETS: dict[str, Callable[[bytes], None]] = runpy.run_path(str(FOLDER / "fuzz" / "targets.py"))["TARGETS"]
FAULTS = sorted(path for path in (FOLDER / "fuzz" / "faults").glob("*-*") if path.is_file())
SEEDS = [path.read_bytes() for path in sorted(FOLDER.glob("*/*/*.llmz")) if path.stat().st_size < 5000]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda path: path.name)
def test_faults_stay_mended(fault: Path) -> None:
    """What fuzzing once found."""
    TARGETS[fault.name.partition("-")[0]](fault.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused(name: str) -> None:
    """Without an error that is not ours."""

    @given(st.binary(max_size=300))
    def _test(data: bytes) -> None:
        TARGETS[name](data)

    _test()


@pytest.mark.parametrize("name", TARGETS)
def test_changed_archives_are_read_or_refused(name: str) -> None:
    """Whole ones and what stands behind their headers, with some bytes changed, taken out or doubled."""

    @given(st.sampled_from(SEEDS), st.sampled_from([0, 16]), st.randoms(use_true_random=False))
    def _test(seed: bytes, start: int, rng: random.Random) -> None:
        data = bytearray(seed[start:])
        for _ in range(rng.randint(1, 3)):
            at, n = rng.randint(0, len(data)), rng.choice([1, 1, 2, 8])
            change = rng.choice([rng.randbytes(n), b"", bytes(data[at : at + n]) * 2])
            data[at : at + n] = change
        TARGETS[name](bytes(data))

    _test()
