from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.bench.contenders import (
    ALL_OPPONENTS,
    DEFAULT_OPPONENTS,
    Kind,
    Reference,
    against,
    contender_of,
    default_opponents,
    missing,
)
from llmzip.bench.libraries import LIBRARIES, Library
from llmzip.errors import ConfigError

INSTALLED = [name for name in LIBRARIES if missing(against(name)) is None]
VARIANTS = [variant for name in INSTALLED for variant in LIBRARIES[name].variants]
INPUTS = {"one": b"x", "bytes": bytes(range(256)), "text": b"It is the same text again. " * 400}


@pytest.mark.parametrize("library", VARIANTS, ids=lambda library: library.name)
@given(raw=st.binary(min_size=1, max_size=400))
def test_library_restores_any_bytes(library: Library, raw: bytes) -> None:
    """Whatever the bytes, they come back."""
    assert library.decompress(library.compress(raw), len(raw)) == raw


@pytest.mark.parametrize("name", [name for name in DEFAULT_OPPONENTS if name not in LIBRARIES])
@pytest.mark.parametrize("raw", INPUTS.values(), ids=INPUTS)
def test_program_restores_what_it_compressed(name: str, raw: bytes, tmp_path: Path) -> None:
    """A program gives the same bytes back, and leaves its input as it was."""
    if reason := missing(against(name)):
        pytest.skip(reason)
    files = [tmp_path / part for part in ("raw", "packed.x", "restored")]
    files[0].write_bytes(raw)
    contender = contender_of(against(name))
    contender.encode(files[0], files[1], 0)
    contender.decode(files[1], files[2], 0, len(raw))
    assert [files[0].read_bytes(), files[2].read_bytes()] == [raw, raw]


def test_opponents_by_default_are_no_failure_where_they_are_missing() -> None:
    """Who names one wants it; who names none takes what there is."""
    assert [reference.text for reference in default_opponents()] == list(DEFAULT_OPPONENTS)
    assert not any(reference.asked for reference in default_opponents())
    assert all(against(name).asked for name in ALL_OPPONENTS)


def test_what_is_no_opponent_is_refused() -> None:
    """The error lists those that there are."""
    with pytest.raises(ConfigError, match=r"one of zlib, bzip2, .*, cmix, or 'COMPRESS ; DECOMPRESS', found zstd$"):
        against("zstd")
    with pytest.raises(ConfigError, match=r"found 1 commands and 0 ;$"):
        against("gzip -9")


def test_missing_packages_and_programs_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install, or what to have on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert missing(against("ppmd")) == "expected the package pyppmd, found none: pip install pyppmd"
    assert missing(against("zpaq")) == "expected the program zpaq on PATH, found none"
    assert missing(against("no-such ; cat")) == "expected the program no-such on PATH, found none"
    assert missing(against("zlib")) is None


def test_references_of_all_kinds_make_contenders(tiny_model: object) -> None:
    """Opponents have no model, llmzip has."""
    del tiny_model
    made = [contender_of(r) for r in [*default_opponents(), against("a ; b"), Reference(Kind.MODEL, "tiny")]]
    assert [contender.model_bytes > 0 for contender in made] == [False] * (len(made) - 1) + [True]
    assert made[-1].variants == ("llmzip, tiny",)
