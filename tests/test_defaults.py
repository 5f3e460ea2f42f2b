from __future__ import annotations

from dataclasses import replace

import pytest

from llmzip.defaults import default_chunk_size, default_overlap, default_window, is_small
from llmzip.exact.spec import ModelSpec
from llmzip.models.artefact import load_artefact
from llmzip.models.store import find_bundled


@pytest.fixture(scope="module")
def small() -> ModelSpec:
    """The bundled model's shape."""
    return load_artefact(find_bundled().path).spec


def test_the_bundled_model_is_small_and_wide_ones_are_not(small: ModelSpec) -> None:
    """By their width alone."""
    assert is_small(small)
    assert not is_small(replace(small, width=576))


@pytest.mark.parametrize(("limit", "window"), [(32, 32), (1000, 512), (1024, 1024), (8192, 1024)])
def test_the_window_is_a_power_of_two_that_the_model_allows(small: ModelSpec, limit: int, window: int) -> None:
    """At most 1,024."""
    assert default_window(replace(small, max_positions=limit)) == window


def test_windows_of_large_models_overlap_more(small: ModelSpec) -> None:
    """A sixteenth and a quarter."""
    assert default_overlap(small, 1024) == 64
    assert default_overlap(replace(small, width=576), 1024) == 256


@pytest.mark.parametrize(
    ("n_bytes", "of_small", "of_large"),
    [(1, 16384, 32768), (1 << 20, 16384, 32768), (3 << 19, 24576, 32768), (4 << 20, 32768, 32768)],
)
def test_chunks_of_small_models_fill_the_lanes(small: ModelSpec, n_bytes: int, of_small: int, of_large: int) -> None:
    """From 16 KiB on, up to 32 KiB; and never more than 64 bytes for each token of a window."""
    assert default_chunk_size(small, 1024, n_bytes) == of_small
    assert default_chunk_size(replace(small, width=576), 1024, n_bytes) == of_large
    assert default_chunk_size(small, 32, n_bytes) == 2048
