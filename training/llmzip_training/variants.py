"""The same documents as other programs write them, so that what is trained knows such texts too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

# One document in so many is changed, each kind in its turn.
STRIDE = 6
VARIANTS: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace("\n", "\r\n"),
    str.upper,
    lambda text: text.replace("    ", "\t"),
    lambda text: text.replace(" ", "\n"),
)


def with_variants(documents: Iterable[str]) -> Iterator[str]:
    """Documents, of which one in six is changed: line ends of CR and LF, capitals, tabs, a word a line."""
    for i, document in enumerate(documents):
        turn, rest = divmod(i, STRIDE)
        yield document if rest else VARIANTS[turn % len(VARIANTS)](document)
