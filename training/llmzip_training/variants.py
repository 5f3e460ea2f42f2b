"""The same documents as other programs write them, so that what is trained knows such texts too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

VARIANTS: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace("\n", "\r\n"),
    str.upper,
    lambda text: text.replace("    ", "\t"),
    lambda text: text.replace(" ", "\n"),
)


def with_variants(documents: Iterable[str], stride: int) -> Iterator[str]:
    """Documents, of which one in `stride` is changed, none for 0.

    Line ends of CR and LF, capitals, tabs, a word a line: each has its turn.
    """
    for i, document in enumerate(documents):
        turn, rest = divmod(i, stride) if stride else (0, 1)
        yield document if rest else VARIANTS[turn % len(VARIANTS)](document)
