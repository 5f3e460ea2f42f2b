from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["kernels", "training", "tests"])
def test_folders_are_no_packages(folder: str) -> None:
    """The folders hold no __init__.py, so their names stay free."""
    assert not (_ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("name", ["kernels", "training"])
def test_bare_names_are_not_ours(name: str) -> None:
    """An isolated interpreter finds nothing of ours under the bare names."""
    code = (
        "import importlib.util\n"
        f"spec = importlib.util.find_spec({name!r})\n"
        "print(spec and (spec.origin or list(spec.submodule_search_locations)))\n"
    )
    found = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=_ROOT)
    assert str(_ROOT) not in found.stdout


def test_the_wheel_has_three_packages() -> None:
    """The distribution is llmzip, llmzip_kernels and llmzip_training, and nothing else."""
    import tomllib

    from setuptools import find_packages

    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    find = settings["tool"]["setuptools"]["packages"]["find"]
    found = {name for where in find["where"] for name in find_packages(str(_ROOT / where), include=find["include"])}
    assert {name.partition(".")[0] for name in found} == {"llmzip", "llmzip_kernels", "llmzip_training"}


def test_typed_packages_say_so() -> None:
    """Each package carries the mark that tells type checkers to trust its annotations."""
    for package in ("llmzip", "kernels/llmzip_kernels", "training/llmzip_training"):
        assert (_ROOT / package / "py.typed").is_file()


def test_package_runs_as_a_module() -> None:
    """`python -m llmzip` is the program, under its name."""
    done = subprocess.run([sys.executable, "-m", "llmzip", "info"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Usage: llmzip info" in done.stderr
