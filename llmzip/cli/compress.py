"""`llmzip compress`: one input to one archive, or files and folders to an archive of members."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from llmzip.cli import options
from llmzip.cli.decompress import decompress
from llmzip.cli.files import STANDARD, compressed_name, files_of, open_journal, open_target, source_name
from llmzip.cli.progress import Report, shown
from llmzip.cli.transfer import Transfer
from llmzip.errors import ConfigError
from llmzip.format.limits import MAGIC

if TYPE_CHECKING:
    from llmzip.options import CompressOptions


def compress(
    names: options.Sources = None,
    output: options.Output = None,
    decode: Annotated[bool, typer.Option("--decompress", "-d", help="Decompress instead.")] = False,
    remove: options.Remove = False,
    force: options.Force = False,
    stdout: options.ToStdout = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    resume: options.Resume = False,
    model: options.Model = None,
    conditioners: options.Conditioners = None,
    conditioner: options.Conditioner = "auto",
    embed: options.Embed = False,
    tune: options.Tune = 0.0,
    tune_chunks: options.TuneChunks = 0.0,
    chunk_size: options.ChunkSize = None,
    window: options.Window = None,
    overlap: options.Overlap = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    lanes: options.Lanes = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
) -> None:
    """Compress IN to OUT, by default to IN.llmz; several inputs or a folder to an archive of files."""
    sources, target = _sources_and_target(names or [], STANDARD if stdout else output)
    source = sources[0] if sources else None
    if decode:
        if len(sources) > 1:
            raise typer.BadParameter(f"expected one archive, found {len(sources)}", param_hint="--decompress")
        decompress(
            source, target, remove, force, stdout, quiet, verbose,
            model=model, conditioners=conditioners, device=device, threads=threads, lanes=lanes, workers=workers,
            memory=memory,
        )  # fmt: skip
        return

    def chosen() -> CompressOptions:
        from llmzip.cli.tuning import chunk_trainer
        from llmzip.options import CompressOptions

        return CompressOptions(
            model=model,
            conditioners=conditioners,
            conditioner=conditioner,
            embed=embed,
            chunk_size=chunk_size,
            window=window,
            overlap=overlap,
            device=device,
            threads=threads,
            lanes=lanes,
            workers=workers,
            memory=memory,
            chunk_trainer=chunk_trainer(tune_chunks, threads) if tune_chunks else None,
        )

    if len(sources) > 1 or (source is not None and _is_folder(source)):
        if tune:
            raise typer.BadParameter("expected one file", param_hint="--tune")
        if remove and not stdout:
            raise typer.BadParameter("only a single file is removed after success", param_hint="--rm")
        _pack(sources, target or compressed_name(sources[0]), force, quiet, verbose, resume, chosen())
        return
    name = source_name(source)
    target = target or compressed_name(name)

    def work(source_file: BinaryIO, target_file: BinaryIO, report: Report, journal: BinaryIO | None) -> None:
        from llmzip.archive import compress_stream
        from llmzip.cli.tuning import tuned

        with tuned(name, chosen(), tune, quiet=quiet) if tune else nullcontext(chosen()) as final:
            compress_stream(source_file, target_file, final, report, journal)

    Transfer(name, target, force, remove and not stdout, quiet, verbose, archive_in=False, resume=resume).run(work)


def _sources_and_target(names: list[str], output: str | None) -> tuple[list[str], str | None]:
    """The last of several names is the target, unless that is named otherwise; None if it is not named."""
    if output is not None or len(names) < 2:
        return names, output
    return names[:-1], names[-1]


def _refuse_other_files(target: str) -> None:
    """An archive of files replaces nothing but an archive: the last name of a list of files is easily one of them."""
    path = Path(target)
    if target != STANDARD and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ConfigError(f"{target}: expected a new name or an archive to replace, found another file")


def _is_folder(name: str) -> bool:
    return name != STANDARD and Path(name).is_dir()


def _pack(
    sources: list[str],
    target: str,
    force: bool,
    quiet: bool,
    verbose: bool,
    resume: bool,
    chosen: CompressOptions,
) -> None:
    from llmzip.packing import Packer

    _refuse_other_files(target)
    packer = Packer(sources, files_of(target), lambda text: typer.echo(text, err=True))
    with (
        open_journal(target, resume=resume) as journal,
        shown(target, lambda: packer.raw_length, quiet=quiet) as progress,
    ):
        with open_target(target, STANDARD, force=force, binary=True) as file:
            packer.write(file, chosen, progress.report, journal)
        if verbose:
            typer.echo(f"{target}: {len(packer.members)} members, {progress.summary()}", err=True)
