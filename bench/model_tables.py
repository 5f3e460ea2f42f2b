"""Tables of models and of the program: sizes, speeds, what settings gain, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.recorded import Figures, head, line
from llmzip.bench.corpora import known_files
from llmzip.errors import ConfigError

# Titles of columns, and what the cases of `bench.ratio` begin with after the file's name.
_SIZES = {
    "zstd -22": "zstd -22",
    "xz -9e": "xz -9e",
    "brotli 11": "brotli -q 11",
    "PPMd": "PPMd",
    "llmzip": "llmzip, small",
}
_TEXTS = {
    "first 1 MB of enwik8": "enwik8_1m",
    "alice29.txt": "alice29.txt",
    "lcet10.txt": "lcet10.txt",
    "xargs.1": "xargs.1",
    "a Python module, 37 KB": "structlog_dev.py",
    "plrabn12.txt": "plrabn12.txt",
    "an Apache log, 171 KB": "apache_2k.log",
    "kennedy.xls": "kennedy.xls",
}
# Points of `bench.tradeoff` on the same text: those of the bundled model, and models of other shapes with theirs.
TRADEOFF_TEXT = "held_out_1m.txt, 1000000 bytes"
TRADEOFF_POINTS = [
    *("small", "nothing dropped", "64/384/64/16", "64 everywhere"),
    *("window 512", "window 256", "interim"),
]
SHAPE_POINTS = {
    "width128": "128, 4 layers",
    "width192": "192, 4 layers (that of `small`)",
    "width256": "256, 4 layers",
    "layers6": "192, 6 layers",
    "vocab8192": "192, 4 layers, vocabulary 8,192",
    "without_tables": "192, 4 layers, no tables",
    "gated": "192, 4 layers, gated SiLU of the same size",
    "shipped": "`small` as it is shipped, trained for longer",
}
_POINT_COLUMNS = {
    "parameters in products": ("parameters in products", "", ",.0f"),
    "parameters in look-ups": ("parameters in look-ups", "", ",.0f"),
    "artefact, MB": ("artefact", "MB", ".2f"),
    "bits per byte": ("payload", "bits/byte", ".3f"),
    "encode, KB/s": ("encode", "KB/s", ".1f"),
    "decode, KB/s": ("decode", "KB/s", ".1f"),
}
_PRUNED_COLUMNS = {
    "encode, ms/token": ("encode", "ms/token", ".5f"),
    "decode, ms/token": ("decode", "ms/token", ".5f"),
    "attention in decode, ms/token": ("attention in decode", "ms/token", ".5f"),
    "cache, bytes": ("cache", "bytes", ",.0f"),
    "keys seen, keys/layer": ("keys seen", "keys/layer", ".1f"),
    "payload, bits/token": ("payload", "bits/token", ".3f"),
}
_PRUNED_SETTINGS = (
    "nothing dropped",
    "as it is: cutoff 4, budgets 64/512/64/16",
    "cutoff 4, budgets 64/384/64/16",
)
_MEMORY_LIMITS = [(limit, workers) for limit in (224, 400, 1024) for workers in (0, 2)]


def ratios(figures: Figures) -> Iterator[str]:
    """Bits per byte of some texts, the smallest of each in bold."""
    yield from head("text", [title if title != "llmzip" else "llmzip, bundled" for title in _SIZES])
    for title, file in _TEXTS.items():
        values = [figures.newest("ratio", f"{file}: {case}", "ratio", "bits/byte") for case in _SIZES.values()]
        shown = [f"**{value:.3f}**" if value == min(values) else f"{value:.3f}" for value in values]
        yield line([title, *shown])


def sizes(figures: Figures) -> Iterator[str]:
    """Bytes of archives of all files that were measured."""
    yield from head("text", ["bytes", *_SIZES])
    for file in sorted(figures.files("ratio"), key=str.lower):
        values = [figures.newest("ratio", f"{file}: {case}", "size", "bytes") for case in _SIZES.values()]
        bits = figures.newest("ratio", f"{file}: zstd -22", "ratio", "bits/byte")
        yield line([file, *(f"{value:,.0f}" for value in (_file_size(8 * values[0] / bits), *values))])


def _file_size(estimate: float) -> int:
    """The size of a file, by its ratio's six digits: that of the nearest known file, if it is as near as they tell."""
    nearest = min((known.size for known in known_files().values()), key=lambda size: abs(size - estimate))
    return nearest if abs(nearest - estimate) < 1e-5 * estimate else round(estimate)


def program(figures: Figures) -> Iterator[str]:
    """The whole program on a megabyte, at first and later."""
    ways = [(way, unit) for unit in ("s", "KB/s") for way in ("compress", "decompress")]
    yield from head("run", [f"{way}, {unit}" for way, unit in ways])
    for title, case in (("first", "first run"), ("later", "later runs")):
        of_case = f"bundled, enwik8_1m, 1000000 bytes: {case}"
        values = [figures.newest("program", of_case, way, unit) for way, unit in ways]
        yield line([title, *(f"{value:.1f}" for value in values)])


def tradeoff(figures: Figures) -> Iterator[str]:
    """Settings of the bundled model, and an earlier one: ratio and speed."""
    yield from head("point", list(_POINT_COLUMNS))
    for name in TRADEOFF_POINTS:
        yield line([name, *_cells(figures, "tradeoff", f"{TRADEOFF_TEXT}: {name}", _POINT_COLUMNS)])


def shapes(figures: Figures) -> Iterator[str]:
    """Models of other shapes: ratio and speed."""
    yield line(["run", "width and depth", *_POINT_COLUMNS])
    yield line(["---", "---", *["---:"] * len(_POINT_COLUMNS)])
    for name, shape in SHAPE_POINTS.items():
        yield line([name, shape, *_cells(figures, "tradeoff", f"{TRADEOFF_TEXT}: {name}", _POINT_COLUMNS)])


def pruned_cache(figures: Figures) -> Iterator[str]:
    """What pruning gains."""
    yield from head("setting", list(_PRUNED_COLUMNS))
    for name in _PRUNED_SETTINGS:
        yield line([name, *_cells(figures, "pruned_cache", f"bundled, enwik8: {name}", _PRUNED_COLUMNS)])


def memory(figures: Figures) -> Iterator[str]:
    """Memory under limits; a way without a row was refused, for one that failed leaves the whole run without rows."""
    yield line(["limit, MiB", "workers", "compress, MiB", "decompress, MiB"])
    yield line(["---:"] * 4)
    cases = figures.cases("memory")
    for limit, workers in _MEMORY_LIMITS:
        of_limit = f"bundled, enwik8: {limit} MiB, {workers} workers"
        peaks = [
            f"{figures.newest('memory', case, 'memory', 'MiB'):.0f}" if case in cases else "refused"
            for case in (f"{of_limit}: compress", f"{of_limit}: decompress")
        ]
        if peaks == ["refused", "refused"]:
            raise ConfigError(f"results of memory: expected a row of {of_limit}, found none")
        yield line([str(limit), str(workers), *peaks])


def _cells(figures: Figures, bench: str, case: str, columns: Mapping[str, tuple[str, str, str]]) -> Iterator[str]:
    """A case's figures, each in its format."""
    for metric, unit, shown in columns.values():
        yield format(figures.newest(bench, case, metric, unit), shown)
