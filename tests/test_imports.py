from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
# A module may import from lower ranks, and from its own part.
_RANKS = {
    "allocator": 0,
    "errors": 0,
    "chunking": 1,
    "windows": 1,
    "entropy": 1,
    "own_file": 1,
    "exact": 1,
    "format": 1,
    "tokens": 1,
    "conditioning": 2,
    "defaults": 2,
    "general": 2,
    "models": 2,
    "codec": 3,
    "options": 3,
    "methods": 3,
    "members": 3,
    "lanes": 4,
    "journal": 4,
    "worker": 5,
    "worker_pool": 6,
    "resources": 6,
    "conditioner_store": 3,
    "conditioners": 7,
    "loading": 8,
    "model_decoders": 9,
    "decoding": 10,
    "encoding": 10,
    "contents": 11,
    "archive": 11,
    "archive_file": 12,
    "bench": 12,
    "packing": 12,
    "incremental": 12,
    "salvage": 12,
    "extraction": 12,
    "cli": 13,
    "__main__": 14,
}
# Kernels in float, for training; all others are exact. ARITHMETIC.md has tables for what is transcendental.
_TRAINING_KERNELS = ("training_", "scan_")
_LIBRARIES = {"np", "numpy", "math", "torch", "functional", "tl", "libdevice"}
_TRANSCENDENTAL = {
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "sin", "cos", "tan", "tanh", "erf"),
    *("sigmoid", "softmax", "log_softmax", "silu", "gelu", "rsqrt"),
}
# Training exports artefacts, and the trainer's commands are reached from the command line.
_TRAINING_USERS = {"cli"}


def _imported(path: Path) -> Iterator[str]:
    """Give the dotted names that a module imports, wherever in it they stand; those for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules(folder: str) -> list[Path]:
    return sorted((_ROOT / folder).rglob("*.py"))


def test_imports_point_one_way() -> None:
    """No part of llmzip imports from a part that is built on it."""
    wrong = []
    for path in _modules("llmzip"):
        part = path.relative_to(_ROOT / "llmzip").parts[0].removesuffix(".py")
        for name in _imported(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top != "llmzip" or part == "__init__" or other in (part, "__version__"):
                continue
            if _RANKS[other] >= _RANKS[part]:
                wrong.append(f"{path.relative_to(_ROOT)} imports {name}")
    assert wrong == []


def test_nothing_imports_training_and_only_the_backend_imports_kernels() -> None:
    """The archiver works without its trainer, and the kernels serve the exact arithmetic and the trainer alone."""
    for path in [*_modules("llmzip"), *_modules("kernels")]:
        part = path.relative_to(_ROOT).parts[1].removesuffix(".py")
        tops = {name.partition(".")[0] for name in _imported(path)}
        assert "llmzip_training" not in tops or part in _TRAINING_USERS, path
        assert "llmzip_kernels" not in tops or part in ("exact", "llmzip_kernels"), path


def test_the_exact_arithmetic_has_no_transcendental_function() -> None:
    """Nothing that computes for coding, on a device either, calls one or imports kernels of training, which do."""
    modules = [*_modules("llmzip/exact"), *_modules("kernels")]
    exact = [path for path in modules if not path.name.startswith(_TRAINING_KERNELS)]
    assert len(modules) > len(exact) > 0
    for path in exact:
        imported = {name.split(".")[1] for name in _imported(path) if name.startswith("llmzip_kernels.")}
        assert not any(name.startswith(_TRAINING_KERNELS) for name in imported), path
        assert _called(path).isdisjoint(_TRANSCENDENTAL), path
    assert any(_called(path) & _TRANSCENDENTAL for path in modules), "the calls of training's kernels are not seen"


def _called(path: Path) -> set[str]:
    """The functions of array libraries that a module names: `np.exp` is `exp`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _LIBRARIES
    }


def test_constriction_is_known_to_entropy_only() -> None:
    """Every entropy-coded symbol goes through one package."""
    users = {
        path.relative_to(_ROOT / "llmzip").parts[0]
        for path in _modules("llmzip")
        if any(name.partition(".")[0] == "constriction" for name in _imported(path))
    }
    assert users <= {"entropy"}
