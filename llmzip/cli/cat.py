"""`llmzip cat`: the content, or a range of its bytes, to standard output."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source
from llmzip.errors import ConfigError


def cat(
    file: options.Archive,
    wanted: Annotated[
        Any,
        typer.Option("--range", parser=options.parse_range, metavar="A:B", help="Only the bytes from A up to B."),
    ] = None,
    model: options.Model = None,
    conditioners: options.Conditioners = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    lanes: options.Lanes = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    max_size: options.MaxSize = None,
) -> None:
    """Write the content of an archive, or a range of it, to standard output."""
    from llmzip.archive import decompress_stream
    from llmzip.decoding import read_range
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
    target = sys.stdout.buffer
    with open_source(file, binary=True) as source:
        if wanted is None:
            decompress_stream(source, target, chosen, None)
        else:
            if not source.seekable():
                raise ConfigError(f"{file}: expected a file for --range, found a pipe")
            start, stop = wanted
            for piece in read_range(source, start, stop, chosen, lambda text: typer.echo(f"{file}: {text}", err=True)):
                target.write(piece)
    target.flush()
