"""What a terminal shows and a file does not."""

from __future__ import annotations

import os
import sys

import typer


def emphasised(text: str) -> str:
    """Text for standard error, in colour where that is a terminal that shows colours, and nobody said NO_COLOR.

    Source: https://no-color.org
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else typer.style(text, fg=typer.colors.RED, bold=True)
