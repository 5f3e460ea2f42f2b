"""`llmzip test`: decode and compare with every checksum, write nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source
from llmzip.cli.progress import shown


def verify(
    files: options.Archives,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    model: options.Model = None,
    threads: options.Threads = None,
    lanes: options.Lanes = None,
) -> None:
    """Decode archives without writing anything, and compare every checksum."""
    from llmzip.archive import decompress_stream
    from llmzip.options import DecompressOptions

    chosen = DecompressOptions(model=model, threads=threads, lanes=lanes)
    results = []
    for name in files:
        with (
            open_source(name, binary=True) as source,
            Path(os.devnull).open("wb") as nowhere,
            shown(name, lambda: None, quiet=quiet) as progress,
        ):
            decompress_stream(source, nowhere, chosen, progress.report)
        results.append({"file": name, "ok": True, "raw_length": progress.raw_length})
        if not quiet and not as_json:
            typer.echo(f"{name}: ok, {progress.raw_length} bytes")
    if as_json:
        typer.echo(json.dumps(results, indent=2))
