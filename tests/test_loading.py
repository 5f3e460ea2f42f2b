from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip import loading
from llmzip.codec import Codec
from llmzip.errors import ExactnessError
from llmzip.exact.backend import Floats
from llmzip.exact.cpu import CpuBackend
from llmzip.exact.reference_backend import ReferenceBackend
from llmzip.exact.spec import ModelSpec
from llmzip.loading import expect_equal, load_codec
from llmzip.models.artefact import Artefact
from llmzip.options import CompressOptions
from llmzip.windows import Windowing


class _WrongBackend(CpuBackend):
    """Wrong about a single token, and only where many rows go together; wants to be proven."""

    needs_proof = True

    def member_frequencies(self, weights: NDArray[np.int32], buckets: NDArray[np.int32], bucket_size: int) -> Floats:
        found = super().member_frequencies(weights, buckets, bucket_size)
        if len(found) > 50:
            found[50] = found[50, ::-1].copy()
        return found


def test_backends_that_agree_are_equal(tiny_artefact: Artefact) -> None:
    """The reference and the CPU, for windows shorter than the proof too."""
    for window in (64, 128):
        codecs = [Codec(tiny_artefact, Windowing(window, 16), backend()) for backend in (CpuBackend, ReferenceBackend)]
        expect_equal(*codecs)


def test_one_wrong_row_is_seen(tiny_artefact: Artefact) -> None:
    """Of hundreds of tokens."""
    codecs = [Codec(tiny_artefact, Windowing(128, 16), backend()) for backend in (_WrongBackend, CpuBackend)]
    with pytest.raises(ExactnessError, match="expected the same payloads, found others; --device cpu does without"):
        expect_equal(*codecs)


class _UnsteeredBackend(CpuBackend):
    """Knows nothing of shifts."""

    def new_cache(self, spec: ModelSpec, n_lanes: int, capacity: int) -> Any:
        cache = super().new_cache(spec, n_lanes, capacity)
        vars(cache)["steer"] = lambda _lane, _shifts: None
        return cache


def test_shifts_are_proven_too(tiny_artefact: Artefact) -> None:
    """Though no window of the payloads has any."""
    codecs = [Codec(tiny_artefact, Windowing(128, 16), backend()) for backend in (_UnsteeredBackend, CpuBackend)]
    with pytest.raises(ExactnessError, match="expected the same payloads, found others"):
        expect_equal(*codecs)


@pytest.fixture
def fresh_codecs() -> Iterator[None]:
    """None is loaded before or after."""
    for cached in (loading._load_codec, loading._load_any_codec):
        cached.cache_clear()
    yield
    for cached in (loading._load_codec, loading._load_any_codec):
        cached.cache_clear()


@pytest.mark.usefixtures("tiny_model", "fresh_codecs")
def test_a_backend_that_needs_proof_codes_nothing_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that differs from the CPU's is refused when it is loaded."""
    wrong = _WrongBackend()
    monkeypatch.setattr("llmzip.exact.backend._load", lambda name: CpuBackend() if name == "cpu" else wrong)
    with pytest.raises(ExactnessError, match="backends cpu and cpu: expected the same payloads"):
        load_codec(CompressOptions(model="tiny", device="cuda"))
