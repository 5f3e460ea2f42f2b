"""`llmzip list`: a line for each archive, told from its records without decoding."""

from __future__ import annotations

import json
from typing import Any

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source

_COLUMNS = "{:>12} {:>12} {:>8} {:>8}  {:<12} {}"


def list_archives(files: options.Archives, as_json: options.Json = False) -> None:
    """Show sizes, ratio, chunks and model of archives, without decoding them."""
    rows = [_row(name) for name in files]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(_COLUMNS.format("archive", "raw", "ratio", "chunks", "model", "file"))
    for row in rows:
        ratio = f"{row['archive_length'] / row['raw_length']:.2%}" if row["raw_length"] else "-"
        models = ",".join(row["models"]) or "-"
        typer.echo(
            _COLUMNS.format(row["archive_length"], row["raw_length"], ratio, row["n_chunks"], models, row["file"])
        )


def _row(name: str) -> dict[str, Any]:
    from llmzip.format import scan

    with open_source(name, binary=True) as source:
        frames = list(scan(source))
    return {
        "file": name,
        "archive_length": sum(frame.size for frame in frames),
        "raw_length": sum(frame.raw_length for frame in frames),
        "n_frames": len(frames),
        "n_chunks": sum(total.n_chunks for frame in frames for total in frame.methods.values()),
        "models": sorted({frame.header.artefact_id.hex() for frame in frames if frame.header.uses_model}),
    }
