from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.bench.records import Run
from llmzip.bench.rows import Row, Status, with_break_even


def _row(name: str, n_packed: int, model_bytes: int = 0, n_raw: int = 1000) -> Row:
    own = model_bytes > 0
    return Row("file", name, name, own, Status.OK, n_raw=n_raw, n_packed=n_packed, model_bytes=model_bytes)


def test_model_pays_from_the_break_even_on() -> None:
    """300 bytes instead of 400 for a thousand: a model of 5,000 bytes pays after fifty thousand."""
    _, _, own = with_break_even([_row("large", 500), _row("small", 400), _row("own", 300, 5000)])
    assert (own.best_opponent, own.break_even) == ("small", 50_000)


def test_model_that_gains_nothing_never_pays() -> None:
    """Not where the opponent is as small, nor where it is smaller."""
    rows = with_break_even([_row("small", 300), _row("own", 300, 5000), _row("other", 301, 5000)])
    assert [(row.best_opponent, row.break_even) for row in rows] == [("", None), ("small", None), ("small", None)]


def test_only_what_came_back_right_is_an_opponent() -> None:
    """One that failed is not held against, however small it claims to be; without any there is nothing to say."""
    wrong = Row("file", "wrong", "wrong", False, Status.WRONG, n_raw=1000, n_packed=1)
    (_, own) = with_break_even([wrong, _row("own", 300, 5000)])
    assert (own.best_opponent, own.break_even) == ("", None)


@given(n_raw=st.integers(1, 10**9), own=st.integers(1, 10**8), more=st.integers(1, 10**8), model=st.integers(1, 10**12))
def test_break_even_is_the_first_size_that_pays(n_raw: int, own: int, more: int, model: int) -> None:
    """There the model's bytes are no more than what the ratios save; one byte before they are more."""
    (_, row) = with_break_even([_row("small", own + more, n_raw=n_raw), _row("own", own, model, n_raw=n_raw)])
    assert row.break_even is not None
    assert row.break_even * more >= model * n_raw > (row.break_even - 1) * more


def test_ratios_count_the_model_where_asked() -> None:
    """Once without the model, once as if the archive had to bring it."""
    row = _row("own", 300, 5000)
    assert (row.bits_per_byte, row.bits_per_byte_with_model) == (2.4, 42.4)


def test_totals_are_of_those_who_came_through_everywhere(run: Run) -> None:
    """Sizes and seconds are summed; who failed on a file, or was not tried on all, has no total."""
    (total,) = run.totals
    assert (total.file, total.contender) == ("all 2 files", "small -9")
    assert (total.n_raw, total.n_packed) == (2000, 650)
    assert total.encode is not None
    assert total.decode is not None
    assert (total.encode.seconds.p50, total.encode.speed.p50) == (1.0, 2.0)
    assert total.decode.seconds.p50 == pytest.approx(0.012, rel=1e-12)


def test_figures_of_the_repository_are_measured_by_the_same_code() -> None:
    """The opponents of `bench.ratio` are those of the command: there is no second list of settings."""
    source = Path(__file__).parents[2] / "bench" / "contenders.py"
    spec = importlib.util.spec_from_file_location("contenders_of_the_repository", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from llmzip.bench.libraries import LIBRARIES

    names = {contender.name for variants in module.opponents() for contender in variants}
    assert names <= {library.name for choice in LIBRARIES.values() for library in choice.variants}
