from __future__ import annotations

import subprocess
import sys

import pytest

import llmzip


def test_public_names_are_sorted_and_listed() -> None:
    """`__all__` is sorted, without repetition, and what `dir` shows."""
    assert llmzip.__all__ == sorted(set(llmzip.__all__))
    assert dir(llmzip) == llmzip.__all__


@pytest.mark.parametrize("name", llmzip.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each name loads from the module that defines it."""
    assert getattr(llmzip, name) is not None


def test_other_names_are_refused() -> None:
    """A wrong name is an AttributeError, as for any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = llmzip.no_such_name


def test_importing_llmzip_loads_nothing_heavy() -> None:
    """`import llmzip` costs no time."""
    heavy = {"numpy", "torch", "typer", "transformers", "llmzip.archive"}
    code = f"import sys, llmzip; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
