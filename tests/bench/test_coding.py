from __future__ import annotations

import numpy as np
import pytest

from bench.coding import Coding
from llmzip.codec import Codec
from llmzip.errors import ExactnessError
from llmzip.lanes import Lanes
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing


@pytest.fixture
def codec(tiny_artefact: Artefact) -> Codec:
    """The model `tiny`."""
    return Codec(tiny_artefact, Windowing(32, 8))


def test_sums_are_those_of_all_chunks(codec: Codec, sample_text: bytes) -> None:
    """Tokens, bytes and bits; fewer lanes than chunks."""
    raws = [sample_text[:300], sample_text[300:310], sample_text[310:700]]
    coding = Coding.of_bytes(codec, raws, 2, 1)
    coding.encode()
    coding.decode()
    assert coding.n_raw == 700
    assert coding.n_tokens == sum(map(len, codec.tokenise(raws)))
    assert coding.n_bits == 8 * sum(map(len, coding.payloads))


def test_other_payloads_are_an_error(codec: Codec, sample_text: bytes) -> None:
    """A second encoding must give the first one's payloads."""
    coding = Coding.of_bytes(codec, [sample_text[:100]], 1, 1)
    coding.payloads = [b""]
    with pytest.raises(ExactnessError, match="expected the same 1 payloads"):
        coding.encode()


def test_other_bytes_are_an_error(codec: Codec, sample_text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded must be what was encoded."""
    coding = Coding.of_bytes(codec, [sample_text[:100]], 1, 1)
    monkeypatch.setattr(Lanes, "end", lambda *_arguments: b"other")
    with pytest.raises(ExactnessError, match="expected the bytes of 1 chunks back"):
        coding.decode()


def test_tokens_of_other_bytes_are_an_error(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that loses bytes is found out before anything is timed."""
    monkeypatch.setattr(codec, "tokenise", lambda raws: [np.zeros(0, np.int32) for _ in raws])
    with pytest.raises(ExactnessError, match="expected tokens of the bytes of 1 chunks"):
        Coding.of_bytes(codec, [b"text"], 1, 1)
