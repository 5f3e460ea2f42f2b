from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
# A compiler with all its passes, some hundred times, by one test that waits for it.
pytestmark = pytest.mark.timeout(1200)

_ROOT = Path(__file__).parents[2]
# Contracted, approximate and flushing instructions; of floats those that round otherwise than to nearest.
_INEXACT = r"\bfma\.|\bmad\.[a-z.]*f\d|div\.(?:full|approx)|(?:sqrt|rcp|rsqrt|ex2|lg2|sin|cos|tanh)\.approx|\.ftz"
_PRODUCTS = r"(?:mma\.sync|wgmma\.mma_async)[\w.]*|dp4a[\w.]*"


@pytest.fixture(scope="module")
def assemblies(compile_case: Callable[[str], list[dict[str, Any]]]) -> dict[str, list[tuple[str, str]]]:
    """PTX and SASS of the kernels of the exact arithmetic, in all the ways that some models launch them."""
    found: dict[str, list[tuple[str, str]]] = {}
    for facts in compile_case("exact"):
        found.setdefault(facts["kernel"], []).append((facts["ptx"], facts["sass"]))
    return found


@pytest.fixture
def assembly(assemblies: dict[str, list[tuple[str, str]]]) -> dict[str, list[str]]:
    """PTX alone."""
    return {name: [ptx for ptx, _ in variants] for name, variants in assemblies.items()}


def _kernels() -> Iterator[str]:
    for path in sorted((_ROOT / "kernels/llmzip_kernels").glob("*.py")):
        if not path.name.startswith(("training_", "scan_")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                    yield node.name


@pytest.mark.slow
def test_every_kernel_compiles_to_exact_instructions(assembly: dict[str, list[str]]) -> None:
    """For an H100: all kernels there are, none of which contracts, approximates or flushes anything."""
    assert sorted(assembly) == sorted(_kernels())
    for name, variants in assembly.items():
        assert variants, name
        for ptx in variants:
            assert ".entry" in ptx, name
            assert re.findall(_INEXACT, ptx) == [], name


@pytest.mark.slow
def test_products_are_those_of_integers(assembly: dict[str, list[str]]) -> None:
    """Of int8 with sums in int32, wherever there is a product of matrices."""
    for name in ("linear_kernel", "attention_kernel", "selective_attention_kernel"):
        for ptx in assembly[name]:
            found = set(re.findall(_PRODUCTS, ptx))
            assert found, name
            assert all("s32.s8.s8" in instruction or "dp4a" in instruction for instruction in found), (name, found)
    for name in sorted(set(assembly) - {"linear_kernel", "attention_kernel", "selective_attention_kernel"}):
        assert not any(re.search(_PRODUCTS, ptx) for ptx in assembly[name]), name


@pytest.mark.slow
def test_the_assembler_contracts_nothing_either(assemblies: dict[str, list[tuple[str, str]]]) -> None:
    """Where there is no division or root, which take fused steps inside and round once, there are no such steps."""
    checked = 0
    for name, variants in assemblies.items():
        for ptx, sass in variants:
            if not re.search(r"\b(?:div|sqrt)\.", ptx):
                assert re.search(r"\b(?:EXIT|RET)\b", sass), name
                assert re.findall(r"\b[FD]FMA\b", sass) == [], name
                checked += bool(re.search(r"\bFMUL\b", sass)) and bool(re.search(r"\bFADD\b", sass))
    assert checked >= 4


def test_the_search_finds_what_it_looks_for() -> None:
    """Each of the instructions that must not be there, and none of those that may."""
    for inexact in ("fma.rn.f32", "fma.rn.f64", "mad.rn.f32", "div.full.f32", "div.approx.f32", "sqrt.approx.f32"):
        assert re.search(_INEXACT, f"\t{inexact} \t%f1, %f2, %f3;"), inexact
    for inexact in ("ex2.approx.f32", "add.ftz.f32", "mul.rn.ftz.f32", "rsqrt.approx.f64", "rcp.approx.f32"):
        assert re.search(_INEXACT, inexact), inexact
    for exact in ("mad.lo.s32", "mad.wide.s32", "div.rn.f32", "div.rn.f64", "sqrt.rn.f64", "add.rn.f32", "wgmma.fence"):
        assert not re.search(_INEXACT, exact), exact
