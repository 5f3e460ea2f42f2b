"""`llmzip extract`: members of an archive to files, folders and links."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llmzip.cli import options
from llmzip.cli.files import open_archive
from llmzip.cli.progress import shown


def extract(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Archive of files.")],
    members: Annotated[
        list[str] | None, typer.Argument(metavar="MEMBER...", help="Only these, and what is in them; default: all.")
    ] = None,
    folder: Annotated[str, typer.Option("--directory", "-C", metavar="DIR", help="Where to put them.")] = ".",
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep files that have their member's size and time already.")
    ] = False,
    any_links: Annotated[bool, typer.Option("--any-links", help="Also make links that lead out of DIR.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    model: options.Model = None,
    conditioners: options.Conditioners = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    lanes: options.Lanes = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    max_size: options.MaxSize = None,
) -> None:
    """Extract files, folders and links from an archive that was made of files."""
    from llmzip.contents import find_members, select
    from llmzip.extraction import Extractor
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
    extractor = Extractor(folder, force=force, resume=resume, any_links=any_links)
    with open_archive(file) as source:
        places = select(find_members(source), [os.fsencode(name) for name in members or []])
        with shown(file, lambda: sum(place.member.size for place in places), quiet=quiet) as progress:
            extractor.extract(source, places, chosen, progress.report)
        if verbose:
            typer.echo(f"{file}: {len(places)} members, {progress.raw_length} bytes written", err=True)
