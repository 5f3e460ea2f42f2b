"""The whole report of a machine: one command, under half an hour on two cores.

    python -m bench.report FOLDER [--out docs/report] [--models bundled,smollm2-135m] [--published MODELS] [--text FILE]
                           [--minutes 29] [--quick]
    python -m bench.report --redraw [--out docs/report]

Runs the benchmarks that `bench.report_plan` lists on the files of a folder, each in a process of its own, and writes
a page with pictures of the rows that they appended. A part that fails, or for which no time is left, is a row of the
page, and the others run all the same; the command then ends with status 1. `--redraw` writes the page of the newest
run again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report_page, results
from bench.arguments import positive
from bench.contenders import BUNDLED
from bench.report_plan import FULL, QUICK, Planned, plan
from bench.report_rows import BENCH, Part, part_figures, read_runs, start_figure
from bench.results import ROOT
from llmzip.errors import ConfigError, LlmzipError

_DEFAULT_MODELS = f"{BUNDLED},smollm2-135m"
# What a part that is told to end may take to end its own processes.
_GRACE_SECONDS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    chosen = _parse(arguments)
    try:
        status = 0 if chosen.redraw else _measure(chosen)
        report_page.write(read_runs(chosen.results)[-1], chosen.out)
    except LlmzipError as error:
        print(f"{BENCH}: {error}", file=sys.stderr)
        return 1
    print(f"written: {chosen.out / report_page.PAGE}")
    return status


def _measure(chosen: argparse.Namespace) -> int:
    """Run all parts, one after another, and append what came of each."""
    parts = list(_plan(chosen))
    results.append(BENCH, [start_figure(len(parts))], chosen.results)
    end = time.monotonic() + 60 * chosen.minutes
    failed = False
    for planned in parts:
        status, part = run_part(planned, end, chosen.results)
        results.append(BENCH, part_figures(part, status), chosen.results)
        failed = failed or bool(status)
    return int(failed)


def _plan(chosen: argparse.Namespace) -> list[Planned]:
    if chosen.folder is None or not chosen.folder.is_dir():
        raise ConfigError(f"{chosen.folder}: expected a folder of files to compress, found none")
    files = sorted(path for path in chosen.folder.iterdir() if path.is_file())
    if not files:
        raise ConfigError(f"{chosen.folder}: expected files, found none")
    text = chosen.text or next((path for path in files if path.name.startswith("enwik8")), files[0])
    models, published = (names.split(",") for names in (chosen.models, chosen.published or chosen.models))
    return list(plan(chosen.folder, text, models, published, QUICK if chosen.quick else FULL))


def run_part(planned: Planned, end: float, path: Path) -> tuple[int, Part]:
    """Run a part until a moment of the monotonic clock at most; its exit status, and it without rows.

    Args:
        planned: the part.
        end: when it must have ended.
        path: where its rows are appended.
    """
    own = [*planned.arguments] if path == results.RESULTS else [*planned.arguments, "--results", str(path)]
    # As the rows have it, by which they are found.
    command = shlex.join(["python", "-m", planned.module, *planned.arguments])
    print(f"\n== {planned.name}: {command}\n", flush=True)
    start = time.monotonic()
    if start >= end:
        return 1, Part(planned.name, command, 0.0, "no time was left for it")
    status, failure = run([sys.executable, "-m", planned.module, *own], end - start)
    if failure:
        print(f"{planned.name}: {failure}", file=sys.stderr)
    return status, Part(planned.name, command, time.monotonic() - start, failure)


def run(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a command; its exit status, and the last line that it told of an error."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, told = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return 1, f"not ended in the {seconds:.0f} seconds that were left"
        except BaseException:
            _end(process)
            raise
    if not process.returncode:
        return 0, ""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return process.returncode, lines[-1] if lines else f"exit status {process.returncode}"


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt a part, so that it ends what it has started, and end it."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Make the report of a machine.")
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER", help="whose files are compressed")
    add("--out", type=Path, default=Path("docs/report"), metavar="FOLDER", help="where the page is written")
    add("--models", default=_DEFAULT_MODELS, help=f"the first for all files; default: {_DEFAULT_MODELS}")
    add("--published", metavar="MODELS", help="those of the published experiment; default: the same")
    add("--text", type=Path, metavar="FILE", help="for published tables, yardstick and growth; default: enwik8")
    add("--minutes", type=positive, default=29, metavar="N", help="what is not done by then fails; default: 29")
    add("--quick", action="store_true", help="tiny sizes, to try the command; its speeds mean nothing")
    add("--redraw", action="store_true", help="measure nothing, write the newest run's page")
    add("--results", type=Path, default=results.RESULTS, metavar="CSV", help="where rows are appended")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
