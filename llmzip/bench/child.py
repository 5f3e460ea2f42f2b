"""One contender, one way, in a process of its own: `python -m llmzip.bench.child JOB`, with a report on its output.

So each measurement has memory of its own, and what one library leaves behind slows no other.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmzip.allocator import return_freed_memory
from llmzip.bench.contenders import Contender, Kind, Reference, contender_of
from llmzip.bench.memory import childrens_peak, gpu_peak, own_peak
from llmzip.errors import LlmzipError


@dataclass(frozen=True)
class Job:
    """What a child has to do.

    Attributes:
        reference: the contender.
        source, target: paths of files, in one folder.
        decode: the way back.
        n_raw: the size that the raw file has or had.
        variant: which of the contender's settings; None to find that with the smallest result first.
    """

    reference: Reference
    source: str
    target: str
    decode: bool
    n_raw: int
    variant: int | None = None

    def dump(self) -> str:
        """The job as an argument."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Job:
        """The job of an argument."""
        facts = json.loads(text)
        reference = facts.pop("reference")
        return cls(Reference(Kind(reference.pop("kind")), **reference), **facts)


@dataclass(frozen=True)
class Report:
    """What a child has found.

    Attributes:
        name: the contender's, with its settings.
        variant: which of them.
        model_bytes: of its model.
        seconds: of the one run that counts.
        warm_up_seconds: of what only a first run in a process has to do.
        peak_bytes: the most memory that the process that did the work had; None where the system does not tell.
        gpu_peak_bytes: the most of a GPU; None where there was none.
        settings: of the result of encoding.
    """

    name: str
    variant: int
    model_bytes: int
    seconds: float
    warm_up_seconds: float
    peak_bytes: int | None
    gpu_peak_bytes: int | None
    settings: dict[str, Any]


def run(job: Job) -> Report:
    """Do a job."""
    contender = contender_of(job.reference)
    source, target = Path(job.source), Path(job.target)
    start = time.perf_counter()
    contender.warm_up()
    warm = time.perf_counter()
    variant = job.variant if job.variant is not None else _smallest(contender, source, target)
    target.unlink(missing_ok=True)
    begin = time.perf_counter()
    if job.decode:
        contender.decode(source, target, variant, job.n_raw)
    else:
        contender.encode(source, target, variant)
    seconds = time.perf_counter() - begin
    peak = own_peak() if contender.in_process else childrens_peak()
    settings = {} if job.decode else contender.settings(target, job.n_raw)
    return Report(
        contender.variants[variant],
        variant,
        contender.model_bytes,
        seconds,
        warm - start,
        peak,
        gpu_peak(),
        settings,
    )


def _smallest(contender: Contender, source: Path, target: Path) -> int:
    """The setting that compresses best."""
    if len(contender.variants) == 1:
        return 0
    sizes = []
    for variant in range(len(contender.variants)):
        contender.encode(source, target, variant)
        sizes.append(target.stat().st_size)
    return sizes.index(min(sizes))


def main() -> int:
    """Run the job of the command line; the status is that of an error, whose one line is on standard error."""
    return_freed_memory()
    try:
        report = run(Job.load(sys.argv[1]))
    except LlmzipError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return error.exit_code
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
