"""`llmzip info`: all that an archive says of itself, frame by frame, or a file of conditioners."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source

if TYPE_CHECKING:
    from llmzip.format import FrameSummary


def info(file: options.Archive, as_json: options.Json = False) -> None:
    """Show what an archive says of itself: versions, model, window, conditioners, chunks by method, digest."""
    from llmzip.cli.conditioner_info import file_facts, is_conditioner_file, lines_of
    from llmzip.format import scan

    if is_conditioner_file(file):
        found = file_facts(file)
        typer.echo(json.dumps({"file": file} | found, indent=2) if as_json else "\n".join([file, *lines_of(found)]))
        return
    with open_source(file, binary=True) as source:
        frames = [_facts(frame) for frame in scan(source)]
    if as_json:
        typer.echo(json.dumps({"file": file, "frames": frames}, indent=2))
        return
    for number, frame in enumerate(frames):
        typer.echo(f"{file}, frame {number}")
        for key, value in frame.items():
            if key == "conditioners" and value:
                typer.echo("\n".join(f"  {line}" for line in ["conditioners", *lines_of(value)]))
            else:
                typer.echo(f"  {key.replace('_', ' '):<20} {_text(value)}")


def _facts(frame: FrameSummary) -> dict[str, Any]:
    from llmzip.cli.conditioner_info import header_facts

    header = frame.header
    return {
        "offset": frame.offset,
        "archive_length": frame.size,
        "raw_length": frame.raw_length,
        "format_version": header.version,
        "arithmetic_version": header.arithmetic_version,
        "coder_version": header.coder_version,
        "model": header.artefact_id.hex() if header.uses_model else None,
        "canary": header.canary.hex() if header.uses_model else None,
        "window": header.window if header.uses_model else None,
        "overlap": header.overlap if header.uses_model else None,
        "conditioners": header_facts(header),
        "digest": frame.digest.hex() if frame.digest else None,
        "chunks": {
            method.name.lower(): {
                "n_chunks": total.n_chunks,
                "raw_length": total.raw_length,
                "payload_length": total.payload_length,
            }
            for method, total in frame.methods.items()
        },
    }


def _text(value: Any) -> str:
    """Write a fact for people."""
    if isinstance(value, dict):
        return "; ".join(
            f"{method}: {total['n_chunks']} chunks, {total['raw_length']} -> {total['payload_length']} bytes"
            for method, total in value.items()
        )
    return "-" if value is None else str(value)
