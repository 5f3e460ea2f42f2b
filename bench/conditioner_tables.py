"""Tables of conditioners: what they gain on files, on one text, and what their own bits cost."""

from __future__ import annotations

from collections.abc import Iterator

from bench import published
from bench.published import Published, PublishedPrior
from bench.recorded import Figures, head, line

_GAIN, _TUNED = "conditioner_gain", "conditioner_gain --tune"
# Texts with a row of their own; those of other kinds have one a kind.
_TEXTS = [
    *("prose/alice29.txt", "prose/lcet10.txt", "prose/bible.txt", "verse/plrabn12.txt", "verse/asyoulik.txt"),
    *("wiki/enwik8_1m", "wiki/wikitext2_test.txt"),
]
_TUNED_TEXTS = {"prose/alice29.txt": "--tune 60", "verse/plrabn12.txt": "--tune 60", "wiki/enwik8_1m": "--tune 130"}
_OF_CHUNKS = {
    "conditioner_gain --tune-chunks --first": "16 KiB, 12 s each",
    "conditioner_gain --tune-chunks --first --chunk-size": "64 KiB, 48 s each",
}
_STEERED = "enwik8_1m, 50000 bytes"
_PROMPT, _RANDOM = "prompt, 16 rows", "random prompt, 16 rows of N(0, 0.503²)"
_LEVELS = "256 levels"
_STEERING: dict[str, tuple[str, Published | None]] = {
    "none, the text whole": ("none, whole", published.WHOLE),
    "none, in chunks": ("none, in chunks", published.CHUNKS),
    "'This is Wikipedia html'": ("string 'This is Wikipedia html'", published.STRING),
    "random prompt, 16 rows, 256 Gaussian levels": (f"{_RANDOM}: gaussian, {_LEVELS}", published.RANDOM),
    "prompt trained 20 steps for the text alone, the same levels": (
        f"{_PROMPT}, 20 steps, weight 0: gaussian, {_LEVELS}",
        published.TRAINED_SHORT,
    ),
    "80 steps, the same, Gaussian": (
        f"{_PROMPT}, 80 steps, weight 0: gaussian, {_LEVELS}",
        published.ROUNDED_LONG["gaussian"],
    ),
    "the same, empirical": (
        f"{_PROMPT}, 80 steps, weight 0: empirical, {_LEVELS}",
        published.ROUNDED_LONG["empirical"],
    ),
    "the same, Lloyd-Max": (
        f"{_PROMPT}, 80 steps, weight 0: lloyd-max, {_LEVELS}",
        published.ROUNDED_LONG["lloyd-max"],
    ),
    "prompt, 80 steps for all bits, learnt steps, empirical": (
        f"{_PROMPT}, 80 steps, weight 1: empirical, learnt steps",
        None,
    ),
    "steering vector, 80 steps for the text alone, Gaussian": (
        f"shifts, 80 steps, weight 0: gaussian, {_LEVELS}",
        None,
    ),
    "steering vector, 80 steps for all bits, learnt steps, Gaussian": (
        "shifts, 80 steps, weight 1: gaussian, learnt steps",
        None,
    ),
}
_COORDINATES = "102400 of N(0, 1)"
_PRIORS = {
    "gaussian": {"here, the same distance of levels": "of 0.0391 levels", "here, that of least error": _LEVELS},
    "empirical": {"here": _LEVELS},
    "lloyd-max": {"here": _LEVELS},
}


def conditioner_gain(figures: Figures) -> Iterator[str]:
    """Bytes of archives without and with the bundled model's own set."""
    yield line(["kind", "text", "none", "auto", "gain"])
    yield line(["---", "---", "---:", "---:", "---:"])
    for case in _TEXTS:
        kind, _, text = case.partition("/")
        yield line([kind, text, *_sizes(figures, _GAIN, [case])])
    named = {case.partition("/")[0] for case in _TEXTS}
    kinds: dict[str, list[str]] = {}
    for case in figures.cases(_GAIN):
        kind, slash, _ = case.partition("/")
        if slash and kind not in named:
            kinds.setdefault(kind, []).append(case)
    for kind, cases in sorted(kinds.items()):
        shown = cases[0].partition("/")[2] if len(cases) == 1 else f"{len(cases)} files"
        yield line([kind, shown, *_sizes(figures, _GAIN, cases)])


def tuned_vectors(figures: Figures) -> Iterator[str]:
    """Bytes of archives with a vector that was trained on the text, itself included."""
    yield line(["text", "options", "none", "with the vector", "gain"])
    yield line(["---", "---", "---:", "---:", "---:"])
    for case, options in _TUNED_TEXTS.items():
        yield line([case.partition("/")[2], f"`{options}`", *_sizes(figures, _TUNED, [case])])


def chunk_vectors(figures: Figures) -> Iterator[str]:
    """Bytes of archives whose chunks bring vectors where they pay, themselves included."""
    yield line(["first 100,000 bytes of", "chunks", "none", "with vectors", "gain"])
    yield line(["---", "---", "---:", "---:", "---:"])
    for bench, size in _OF_CHUNKS.items():
        for case in _TUNED_TEXTS:
            yield line([case.partition("/")[2], size, *_sizes(figures, bench, [case])])


def _sizes(figures: Figures, bench: str, cases: list[str]) -> Iterator[str]:
    """Bytes of some texts without and with conditioners, and what these gain."""
    none, auto = (sum(figures.newest(bench, case, metric, "bytes") for case in cases) for metric in ("none", "auto"))
    yield from (f"{none:,.0f}", f"{auto:,.0f}", "0" if none == auto else f"{100 * (1 - auto / none):.2f} %")


def steering(figures: Figures) -> Iterator[str]:
    """Bits of a text under conditioners, beside the published ones."""
    yield from head("conditioner", ["text, bits", "its own, bits", "total", "published text, bits"])
    for title, (case, other) in _STEERING.items():
        of_case = f"{_STEERED}: {case}"
        bits = [figures.newest("steering", of_case, name, "bits") for name in ("payload", "side information", "total")]
        yield line([title, *(f"{value:,.0f}" for value in bits), f"{other.bits:,}, {other.name}" if other else ""])


def hyperpriors(figures: Figures) -> Iterator[str]:
    """Bits of normal numbers under each hyperprior, beside the published ones."""
    columns = ["squared error", "entropy, bits/coordinate", "metadata, bits", "coded, bits", "of 32 bits"]
    yield from head("", columns)
    for kind, rows in _PRIORS.items():
        yield _published(published.PRIORS[kind])
        for title, levels in rows.items():
            case = f"{_COORDINATES}: {kind}, {levels}"
            units = {"squared error": "", "entropy": "bits/coordinate", "metadata": "bits", "coded": "bits"}
            yield _prior(title, *(figures.newest("hyperpriors", case, name, unit) for name, unit in units.items()))


def _published(prior: PublishedPrior) -> str:
    bits = (prior.metadata_bits, prior.total_bits)
    return _prior(f"published, {prior.name}, {published.N_LEVELS} levels", prior.mse, prior.entropy, *bits)


def _prior(title: str, error: float, entropy: float, metadata: float, coded: float) -> str:
    mantissa, exponent = f"{error:.3e}".split("e")
    share = coded / (32 * published.N_COORDINATES)
    cells = [f"{mantissa}e{int(exponent)}", f"{entropy:.4f}", f"{metadata:,.0f}", f"{coded:,.0f}", f"{share:.4f}"]
    return line([title, *cells])
