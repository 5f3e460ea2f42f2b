from __future__ import annotations

from itertools import islice

import pytest

from bench.contenders import Contender, model_reference, opponents

# The others need packages of the extra `bench`; every run of the command decodes and compares them.
INSTALLED = [variant for variants in islice(opponents(), 5) for variant in variants]
TEXT = b"It is the same text again and again; it is the same text again. " * 40


@pytest.mark.parametrize("contender", INSTALLED, ids=lambda contender: contender.name)
@pytest.mark.parametrize("raw", [b"x", bytes(range(256)), TEXT], ids=["one", "bytes", "text"])
def test_opponent_restores_what_it_compressed(contender: Contender, raw: bytes) -> None:
    """An opponent's payload gives back the same bytes."""
    assert contender.decompress(contender.compress(raw), len(raw)) == raw


@pytest.mark.parametrize("contender", INSTALLED, ids=lambda contender: contender.name)
def test_opponent_compresses_repetitions(contender: Contender) -> None:
    """A text of forty equal lines takes less than a tenth of its size."""
    assert len(contender.compress(TEXT)) < len(TEXT) / 10


def test_bundled_model_needs_no_name() -> None:
    """`bundled` is what the program takes when it is told nothing; other names are passed on."""
    assert [model_reference(name) for name in ("bundled", "smollm2-135m")] == [None, "smollm2-135m"]
