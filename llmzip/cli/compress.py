"""`llmzip compress`: one input to one archive."""

from __future__ import annotations

from typing import Annotated, BinaryIO

import typer

from llmzip.cli import options
from llmzip.cli.decompress import decompress
from llmzip.cli.files import STANDARD, compressed_name, source_name
from llmzip.cli.progress import Report
from llmzip.cli.transfer import Transfer


def compress(
    source: options.Source = None,
    target: options.Target = None,
    decode: Annotated[bool, typer.Option("--decompress", "-d", help="Decompress instead.")] = False,
    remove: options.Remove = False,
    force: options.Force = False,
    stdout: options.ToStdout = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    model: options.Model = None,
    chunk_size: options.ChunkSize = None,
    window: options.Window = None,
    overlap: options.Overlap = None,
    threads: options.Threads = None,
    lanes: options.Lanes = None,
) -> None:
    """Compress IN to OUT, by default to IN.llmz."""
    if decode:
        decompress(source, target, remove, force, stdout, quiet, verbose, model, threads, lanes)
        return
    name = source_name(source)
    target = STANDARD if stdout else target or compressed_name(name)

    def work(source_file: BinaryIO, target_file: BinaryIO, report: Report) -> None:
        from llmzip.archive import CompressOptions, compress_stream

        chosen = CompressOptions(
            model=model, chunk_size=chunk_size, window=window, overlap=overlap, threads=threads, lanes=lanes
        )
        compress_stream(source_file, target_file, chosen, report)

    Transfer(name, target, force, remove and not stdout, quiet, verbose, archive_in=False).run(work)
