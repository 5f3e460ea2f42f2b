"""`llmzip decompress`: one archive to its content."""

from __future__ import annotations

from typing import BinaryIO

from llmzip.cli import options
from llmzip.cli.files import STANDARD, decompressed_name, source_name
from llmzip.cli.progress import Report
from llmzip.cli.transfer import Transfer


def decompress(
    source: options.Source = None,
    target: options.Target = None,
    remove: options.Remove = False,
    force: options.Force = False,
    stdout: options.ToStdout = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    model: options.Model = None,
    threads: options.Threads = None,
    lanes: options.Lanes = None,
) -> None:
    """Decompress IN to OUT, by default to IN without .llmz."""
    name = source_name(source)
    target = STANDARD if stdout else target or decompressed_name(name)

    def work(source_file: BinaryIO, target_file: BinaryIO, report: Report, _journal: BinaryIO | None) -> None:
        from llmzip.archive import decompress_stream
        from llmzip.options import DecompressOptions

        chosen = DecompressOptions(model=model, threads=threads, lanes=lanes)
        decompress_stream(source_file, target_file, chosen, report, refuse_members=True)

    Transfer(name, target, force, remove and not stdout, quiet, verbose, archive_in=True).run(work)
