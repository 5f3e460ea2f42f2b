from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.errors import BackendError, ExactnessError
from llmzip.exact import backend, reference
from llmzip.exact.matrix import QuantisedMatrix, Rows
from llmzip.exact.reference_backend import ReferenceBackend

Floats = NDArray[np.float32]


class _Wrong(ReferenceBackend):
    """Computes products in a way of its own."""

    def product(self, rows: Rows, matrix: QuantisedMatrix) -> Floats:
        raise NotImplementedError

    def linear(self, rows: Rows, matrix: QuantisedMatrix, residual: Floats | None = None) -> Floats:
        y = self.product(rows, matrix)
        return y if residual is None else residual + y


class _Saturating(_Wrong):
    """Adds pairs of products in 16 bits, as vendors' 8-bit instructions do."""

    name = "saturating"

    def product(self, rows: Rows, matrix: QuantisedMatrix) -> Floats:
        products = rows.q[:, None, :].astype(np.int64) * matrix.q
        pairs = products[..., ::2].copy()
        pairs[..., : products.shape[2] // 2] += products[..., 1::2]
        acc = np.clip(pairs, -32768, 32767).sum(axis=2)
        y: Floats = (acc.astype(np.float32) * rows.scale[:, None]) * matrix.scale[None, :]
        return y


class _SingleFloats(_Wrong):
    """Sums in float32, which is exact for one limb only."""

    name = "single floats"

    def product(self, rows: Rows, matrix: QuantisedMatrix) -> Floats:
        acc = np.zeros((len(rows.q), len(matrix.q)), np.float32)
        for k in range(rows.q.shape[1]):
            acc += rows.q[:, k, None].astype(np.float32) * matrix.q[None, :, k]
        y: Floats = (acc * rows.scale[:, None]) * matrix.scale[None, :]
        return y


class _Flushing(_Wrong):
    """Loses the last column."""

    name = "flushing"

    def product(self, rows: Rows, matrix: QuantisedMatrix) -> Floats:
        y = reference.linear(rows, matrix)
        y[:, -1] = 0
        return y


@pytest.mark.parametrize("wrong", [_Saturating(), _SingleFloats(), _Flushing()], ids=lambda b: b.name)
def test_a_backend_that_computes_otherwise_is_refused(wrong: ReferenceBackend) -> None:
    """The self-test's operands show saturation, rounding and lost columns."""
    with pytest.raises(ExactnessError, match=f"backend {wrong.name}"):
        backend.self_test(wrong)


def test_the_backends_pass_their_test() -> None:
    """Both of them, and each is made once."""
    for name in ("cpu", "reference"):
        found = backend.load_backend(name)
        backend.self_test(found)
        assert found.name == name
        assert backend.load_backend(name) is found


def test_the_environment_chooses_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMZIP_BACKEND, or cpu; an argument goes before both."""
    monkeypatch.delenv("LLMZIP_BACKEND", raising=False)
    assert backend.load_backend().name == "cpu"
    monkeypatch.setenv("LLMZIP_BACKEND", "reference")
    assert backend.load_backend().name == "reference"
    assert backend.load_backend("cpu").name == "cpu"


class _WithoutCompiler(ReferenceBackend):
    def linear(self, *_rows: Any, **_residual: Any) -> Floats:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")


def test_a_gpu_without_a_compiler_is_not_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles what launches kernels where it runs; whoever asks for the GPU reads what is missing."""
    monkeypatch.delenv("LLMZIP_BACKEND", raising=False)
    monkeypatch.setattr(backend, "_DRIVERS", (__file__,))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    monkeypatch.setitem(sys.modules, "llmzip.exact.cuda", SimpleNamespace(make_backend=_WithoutCompiler))
    for cached in (backend._load, backend._best_backend):
        cached.cache_clear()
    assert backend.load_backend(device="auto").name == "cpu"
    with pytest.raises(BackendError, match=r"found RuntimeError: Failed to find C compiler\. Please specify one$"):
        backend.load_backend(device="cuda")
    for cached in (backend._load, backend._best_backend):
        cached.cache_clear()


def test_an_unknown_backend_is_refused_by_name() -> None:
    """The message names those that there are."""
    with pytest.raises(BackendError, match=r"expected .*cpu.* found 'abacus'"):
        backend.load_backend("abacus")
