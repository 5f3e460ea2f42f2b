"""`llmzip decompress`: one archive to its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import typer

from llmzip.cli import options
from llmzip.cli.files import STANDARD, decompressed_name, source_name
from llmzip.cli.progress import Report
from llmzip.cli.transfer import Transfer
from llmzip.errors import ConfigError, LossError

if TYPE_CHECKING:
    from llmzip.options import DecompressOptions
    from llmzip.salvage import Loss


def decompress(
    source: options.Source = None,
    target: options.Target = None,
    remove: options.Remove = False,
    force: options.Force = False,
    stdout: options.ToStdout = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    salvage: options.Salvage = False,
    model: options.Model = None,
    conditioners: options.Conditioners = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    lanes: options.Lanes = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    max_size: options.MaxSize = None,
) -> None:
    """Decompress IN to OUT, by default to IN without .llmz."""
    name = source_name(source)
    target = STANDARD if stdout else target or decompressed_name(name)

    losses: list[Loss] = []

    def work(source_file: BinaryIO, target_file: BinaryIO, report: Report, _journal: BinaryIO | None) -> None:
        from llmzip.archive import decompress_stream
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
        if salvage:
            losses.extend(_salvage(source_file, target_file, chosen, report))
        else:
            decompress_stream(source_file, target_file, chosen, report, refuse_members=True)

    Transfer(name, target, force, remove and not (stdout or salvage), quiet, verbose, archive_in=True).run(work)
    if losses:
        for loss in losses:
            typer.echo(f"{name}: {loss}", err=True)
        raise LossError(f"{name}: content was lost in {len(losses)} places; what is left is in {target}")


def _salvage(source: BinaryIO, target: BinaryIO, chosen: DecompressOptions, report: Report) -> list[Loss]:
    from llmzip.salvage import salvage_stream

    if not source.seekable():
        raise ConfigError("--salvage: expected a file, found a pipe")
    return salvage_stream(source, target, chosen, report)
