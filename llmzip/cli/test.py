"""`llmzip test`: decode and compare with every checksum, write nothing; every damaged chunk is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source
from llmzip.cli.progress import shown
from llmzip.errors import FormatError

if TYPE_CHECKING:
    from llmzip.format import ChunkPlace
    from llmzip.options import DecompressOptions


def verify(
    files: options.Archives,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    model: options.Model = None,
    conditioners: options.Conditioners = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    lanes: options.Lanes = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    max_size: options.MaxSize = None,
) -> None:
    """Decode archives without writing anything, and compare every checksum."""
    from llmzip.options import DecompressOptions

    chosen = DecompressOptions(
        model=model,
        conditioners=conditioners,
        device=device,
        threads=threads,
        lanes=lanes,
        workers=workers,
        memory=memory,
        max_size=max_size,
    )
    results = []
    first: FormatError | None = None
    for name in files:
        result, errors = _verify(name, chosen, quiet=quiet, lines=not as_json)
        results.append(result)
        first = first or (errors[0] if errors else None)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    if first:
        raise typer.Exit(first.exit_code)


def _verify(
    name: str, chosen: DecompressOptions, *, quiet: bool, lines: bool
) -> tuple[dict[str, Any], list[FormatError]]:
    """The result of one archive, and the errors of its chunks."""
    from llmzip.archive import verify_stream

    damaged: list[dict[str, Any]] = []
    errors: list[FormatError] = []
    facts: dict[str, Any] = {"file": name}
    with open_source(name, binary=True) as source, shown(name, lambda: None, quiet=quiet) as progress:
        try:
            for place, error in verify_stream(source, chosen, progress.report):
                errors.append(error)
                damaged.append(_facts(place, error))
                if lines:
                    typer.echo(f"{name}: {_range(place)}: {error}", err=True)
        except FormatError as error:
            errors.append(error)
            facts["error"] = str(error)
            if lines:
                typer.echo(f"{name}: {error}", err=True)
    if lines and not quiet and not errors:
        typer.echo(f"{name}: ok, {progress.raw_length} bytes")
    facts |= {"ok": not errors, "raw_length": progress.raw_length}
    return facts | ({"damaged": damaged} if damaged else {}), errors


def _range(place: ChunkPlace) -> str:
    return f"bytes {place.raw_offset} to {place.raw_offset + place.record.raw_length - 1}"


def _facts(place: ChunkPlace, error: FormatError) -> dict[str, Any]:
    lengths = {"raw_offset": place.raw_offset, "raw_length": place.record.raw_length}
    return {"offset": place.offset, **lengths, "error": str(error)}
