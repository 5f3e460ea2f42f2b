"""`llmzip bench`: files through llmzip and through other compressors, all decoded and compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from llmzip.cli import options
from llmzip.cli.files import STANDARD, open_target
from llmzip.errors import ConfigError

if TYPE_CHECKING:
    from llmzip.bench.contenders import Reference
    from llmzip.bench.records import Run
    from llmzip.bench.session import Plan

_DEFAULT, _NONE = "default", "none"


def bench(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Files to compress.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Model: a name, an id or a path; none; default: the bundled one."),
    ] = None,
    opponents: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="Opponent: a name, default, none, or '[NAME=]COMPRESS {in} {out} ; DECOMPRESS {in} {out}'.",
        ),
    ] = None,
    corpora: Annotated[
        list[Path] | None,
        typer.Option("--corpus", metavar="DIR", help="All files below a folder that are known by their digests."),
    ] = None,
    fresh: Annotated[
        list[str] | None,
        typer.Option("--fresh", metavar="FILE", help="A file that is newer than the models; its date is told."),
    ] = None,
    limit: Annotated[
        Any, typer.Option("--limit", parser=options.parse_size, metavar="SIZE", help="Only the first bytes of each.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Runs of each; medians count.")] = 1,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: Annotated[str | None, typer.Option("--json", metavar="OUT", help="Write JSON for programs.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="OUT", help="Write CSV for programs.")] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="OUT", help="Write a page with pictures.")] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure size, speed and memory on files, beside other compressors; everything is decoded and compared."""
    plan = _plan(
        files or [], corpora or [], fresh or [], _references(models, opponents, threads, device), limit, repeats
    )
    wanted = {"json": json, "csv": csv, "html": html}
    with ExitStack() as stack:
        targets: dict[str, BinaryIO] = {
            kind: stack.enter_context(open_target(name, STANDARD, force=force, binary=False))
            for kind, name in wanted.items()
            if name is not None
        }
        run = _measure(plan, quiet=quiet, lines_to_error=STANDARD in wanted.values())
        for kind, target in targets.items():
            target.write(_written(kind, run).encode())
    if code := next((row.exit_code for row in run.rows if row.exit_code), 0):
        raise typer.Exit(code)


def _references(
    models: list[str] | None, opponents: list[str] | None, threads: int | None, device: str
) -> list[Reference]:
    """The opponents, then llmzip; a model that is not there is an error now, not after the opponents' minutes."""
    from llmzip.bench import session
    from llmzip.bench.contenders import BUNDLED, against, contender_of, default_opponents
    from llmzip.bench.machine import n_cores

    found: list[Reference] = []
    for text in opponents or [_DEFAULT]:
        found += default_opponents() if text == _DEFAULT else [] if text == _NONE else [against(text)]
    own = session.models([name for name in models or [BUNDLED] if name != _NONE], threads or n_cores(), device)
    for reference in own:
        contender_of(reference)
    if not found and not own:
        raise ConfigError("bench: expected a model or an opponent, found none of both")
    return list({(reference.kind, reference.text): reference for reference in [*found, *own]}.values())


def _plan(
    files: list[str],
    corpora: list[Path],
    fresh: list[str],
    references: list[Reference],
    limit: int | None,
    repeats: int,
) -> Plan:
    from llmzip.bench.corpora import find_known
    from llmzip.bench.session import Plan

    known = [str(path) for folder in corpora for path in find_known(folder)]
    paths = list(dict.fromkeys([*files, *known, *fresh]))
    if corpora and not paths:
        raise ConfigError(f"{corpora[0]}: expected a file that is known by its digest, found none")
    if not paths:
        raise typer.BadParameter("expected a file, --corpus DIR or --fresh FILE", param_hint="FILE...")
    return Plan(paths, frozenset(fresh), references, limit, repeats)


def _measure(plan: Plan, *, quiet: bool, lines_to_error: bool) -> Run:
    from llmzip.bench.columns import problem_text
    from llmzip.bench.session import rows_of, run_of
    from llmzip.bench.table import file_lines, table_lines

    found = []
    with _progress(plan.n_steps, quiet=quiet) as (step, write):
        for text, rows in rows_of(plan, step):
            found.append((text, rows))
            lines = file_lines(text, rows) if text else [f"{row.file}: {problem_text(row)}" for row in rows]
            write("\n".join([*lines, ""]), lines_to_error)
        run = run_of(plan, found)
        if run.totals:
            write("\n".join([f"{run.totals[0].file}", *table_lines(run.totals), ""]), lines_to_error)
        write(f"{run.machine}; decoded and compared; medians of {run.repeats}", lines_to_error)
    return run


@contextmanager
def _progress(n_steps: int, *, quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[str, bool], None]]]:
    """What is told of each step, and what writes lines above the bar that shows them, if there is one."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None, lambda text, error: typer.echo(text, err=error)
        return
    from tqdm import tqdm

    with tqdm(total=n_steps, unit="run", leave=False, file=sys.stderr) as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        def write(text: str, error: bool) -> None:
            bar.clear()
            typer.echo(text, err=error)

        yield step, write


def _written(kind: str, run: Run) -> str:
    from llmzip.bench.page import as_html
    from llmzip.bench.records import as_csv, as_json

    return {"json": as_json, "csv": as_csv, "html": as_html}[kind](run)
