"""Measuring: contenders take turns on a file, every run in a fresh process, every result decoded and compared.

A slow minute of the machine then slows a repetition of every contender instead of all repetitions of one. The clock
stands still while a process starts, loads its model and compiles.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from llmzip.bench.child import Job, Report
from llmzip.bench.contenders import Kind, Reference, contender_of, missing
from llmzip.bench.corpora import Text
from llmzip.bench.memory import tree_peak
from llmzip.bench.rows import Row, Status, Way, greatest, with_break_even
from llmzip.bench.spread import Spread
from llmzip.errors import BackendError, ExactnessError, LlmzipError, WorkerError

# Programs that store a file's name and time get the same ones always.
RAW, _PACKED, _RESTORED = "raw", "packed.x", "restored"
_EVERY = 0.02


class Trial:
    """One contender on one file: its repetitions so far, or why there are no more.

    Args:
        reference: the contender.
        text: the file.
        folder: where it is, under the name `RAW`.
    """

    def __init__(self, reference: Reference, text: Text, folder: Path) -> None:
        self._reference = reference
        self._text = text
        self._raw, self._packed, self._restored = (folder / name for name in (RAW, _PACKED, _RESTORED))
        self._reports: tuple[list[Report], list[Report]] = ([], [])
        self._variant: int | None = None
        self._digest = ""
        self._n_packed = 0
        self.failure: Row | None = None
        if reason := missing(reference):
            self._fail(Status.MISSING, reason, BackendError.exit_code if reference.asked else 0)

    def run(self) -> None:
        """Encode, decode and compare once; a failure is kept, and later calls do nothing."""
        if self.failure is not None:
            return
        try:
            self._choose()
            self._reports[0].append(self._run_child(self._raw, self._packed, decode=False))
            self._check_packed()
            self._reports[1].append(self._run_child(self._packed, self._restored, decode=True))
            if _digest(self._restored) != self._text.sha256:
                raise ExactnessError(_difference(self._raw, self._restored))
        except ExactnessError as error:
            self._fail(Status.WRONG, str(error), error.exit_code)
        except LlmzipError as error:
            self._fail(Status.FAILED, str(error), error.exit_code)
        finally:
            for path in (self._packed, self._restored):
                path.unlink(missing_ok=True)

    def row(self) -> Row:
        """What was found."""
        if self.failure is not None:
            return self.failure
        first = self._reports[0][0]
        return Row(
            self._text.name,
            self._reference.text,
            first.name,
            self._reference.kind is Kind.MODEL,
            Status.OK,
            n_raw=self._text.n_bytes,
            n_packed=self._n_packed,
            model_bytes=first.model_bytes,
            encode=_way(self._reports[0], self._text.n_bytes),
            decode=_way(self._reports[1], self._text.n_bytes),
            settings=first.settings,
        )

    def _fail(self, status: Status, reason: str, exit_code: int) -> None:
        variants = contender_of(self._reference).variants
        name = variants[0] if len(variants) == 1 else self._reference.text
        self.failure = Row(
            self._text.name,
            self._reference.text,
            name,
            self._reference.kind is Kind.MODEL,
            status,
            reason=" ".join(reason.split()),
            exit_code=exit_code,
            n_raw=self._text.n_bytes,
        )

    def _choose(self) -> None:
        """Find the best of several settings in a process whose memory does not count."""
        if self._variant is None and len(contender_of(self._reference).variants) > 1:
            self._variant = self._run_child(self._raw, self._packed, decode=False).variant
        self._variant = self._variant or 0

    def _check_packed(self) -> None:
        """The same input gives the same archive; of opponents the first result counts."""
        digest = _digest(self._packed)
        if self._digest and digest != self._digest and self._reference.kind is Kind.MODEL:
            raise ExactnessError("encode: expected the archive of the first run, found another one")
        if not self._digest:
            self._digest, self._n_packed = digest, self._packed.stat().st_size

    def _run_child(self, source: Path, target: Path, *, decode: bool) -> Report:
        job = Job(self._reference, str(source), str(target), decode, self._text.n_bytes, self._variant)
        return run_child(job)


def measure(
    text: Text, references: Sequence[Reference], folder: Path, repeats: int, step: Callable[[str], None]
) -> list[Row]:
    """All contenders on a file.

    Args:
        text: the file.
        references: the contenders.
        folder: where the file is, under the name `RAW`.
        repeats: how often each of them runs.
        step: told the name of a contender before each of its runs.
    """
    trials = [(reference, Trial(reference, text, folder)) for reference in references]
    for _ in range(repeats):
        for reference, trial in trials:
            step(reference.text)
            trial.run()
    return with_break_even([trial.row() for _, trial in trials])


def run_child(job: Job) -> Report:
    """Do a job in a process of its own.

    Raises:
        WorkerError: it ended with an error, told by its last line.
    """
    command = [sys.executable, "-m", "llmzip.bench.child", job.dump()]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            peak = watch(process, in_process=contender_of(job.reference).in_process)
        except BaseException:
            _kill(process)
            raise
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = errors.read().decode(errors="replace").split("\n")
            told = [line.strip() for line in lines if line.strip()] or [f"exit status {process.returncode}"]
            raise WorkerError(f"{'decode' if job.decode else 'encode'}: {told[-1]}")
        facts = json.loads(output.read().splitlines()[-1])
    return Report(**facts | {"peak_bytes": greatest([facts["peak_bytes"], peak or None])})


def watch(process: subprocess.Popen[bytes], *, in_process: bool) -> int:
    """Wait for a process; the most bytes that those below it, and it where the work is in it, were seen to have."""
    peak = 0
    while True:
        try:
            process.wait(_EVERY)
        except subprocess.TimeoutExpired:
            peak = max(peak, tree_peak(process.pid, with_root=in_process))
        else:
            return peak


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, and a program that it has started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _way(reports: Sequence[Report], n_raw: int) -> Way:
    seconds = [report.seconds for report in reports]
    speed = Spread.of(n_raw / 1000 / one for one in seconds)
    warm_up = min(report.warm_up_seconds for report in reports)
    peak = greatest(report.peak_bytes for report in reports)
    return Way(Spread.of(seconds), speed, warm_up, peak, greatest(report.gpu_peak_bytes for report in reports))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _difference(expected: Path, found: Path) -> str:
    """Where the bytes begin to differ."""
    with expected.open("rb") as one, found.open("rb") as other:
        for offset, (a, b) in enumerate(zip(_bytes_of(one), _bytes_of(other), strict=False)):
            if a != b:
                return f"decode: expected byte {a} at offset {offset}, found {b}"
    sizes = [path.stat().st_size for path in (expected, found)]
    return f"decode: expected {sizes[0]} bytes, found {sizes[1]}"


def _bytes_of(file: BinaryIO) -> Iterator[int]:
    while data := file.read(1 << 16):
        yield from data
