"""A run as JSON and as CSV, for programs: everything that was measured, with what is needed to repeat it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmzip.bench.corpora import Text
from llmzip.bench.rows import Row, Status, Way

FORMAT = 1
HOW = (
    "Every run is a process of its own; every result is decoded, in another process, and compared with the input by "
    "SHA-256. Time is wall-clock time from file to file: that of a Python package or of llmzip without the start of "
    "the process, the loading of the model and the compiling of its loops, which stand as warm-up; that of a program "
    "with its start. Contenders take turns, and speeds are medians of the repetitions. Opponents use one thread. "
    "Memory is the greatest resident set that the working process and those below it had at one moment; Python "
    "packages hold the whole input and output, and the interpreter, some 15 MB; a program is never said to have had "
    "less than that."
)
_WAY_COLUMNS = ("kb_per_s", "kb_per_s_p20", "kb_per_s_p80", "s", "warm_up_s", "peak_bytes", "gpu_peak_bytes")
COLUMNS = (
    *("file", "sha256", "origin", "contender", "status", "reason", "raw_bytes", "packed_bytes", "bits_per_byte"),
    *("model_bytes", "bits_per_byte_with_model", "break_even_bytes", "best_opponent", "repeats"),
    *(f"{way}_{column}" for way in ("encode", "decode") for column in _WAY_COLUMNS),
    *("device", "threads", "window", "overlap", "chunk_size", "date", "machine", "versions", "command"),
)


@dataclass(frozen=True)
class Run:
    """A whole run.

    Attributes:
        date: in UTC.
        machine: processor, cores, instructions.
        versions: of llmzip, Python and packages.
        command: as it can be typed again.
        repeats: of every measurement.
        texts: the files that could be read.
        rows: of all files, in order.
        totals: of all files together; empty where there is only one.
    """

    date: str
    machine: str
    versions: str
    command: str
    repeats: int
    texts: Sequence[Text]
    rows: Sequence[Row]
    totals: Sequence[Row]


def as_json(run: Run) -> str:
    """The run as one object."""
    facts = {
        "format": FORMAT,
        "date": run.date,
        "machine": run.machine,
        "versions": run.versions,
        "command": run.command,
        "how": HOW,
        "files": [asdict(text) | {"origin": text.origin} for text in run.texts],
        "rows": [_facts(row) for row in run.rows],
        "totals": [_facts(row) for row in run.totals],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def as_csv(run: Run) -> str:
    """The rows, one a line, under `COLUMNS`; what does not apply is empty."""
    texts = {text.name: text for text in run.texts}
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    same = {"date": run.date, "machine": run.machine, "versions": run.versions, "command": run.command}
    for row in run.rows:
        text = texts.get(row.file)
        named = {"sha256": text.sha256, "origin": text.origin} if text else {}
        writer.writerow(_flat(row) | named | same)
    return target.getvalue()


def _facts(row: Row) -> dict[str, Any]:
    facts = asdict(row)
    if row.status is not Status.OK:
        return {name: facts[name] for name in ("file", "key", "contender", "has_model", "status", "reason", "n_raw")}
    del facts["exit_code"]
    return facts | {
        "bits_per_byte": row.bits_per_byte,
        "bits_per_byte_with_model": row.bits_per_byte_with_model,
    }


def _flat(row: Row) -> dict[str, Any]:
    told = {"file": row.file, "contender": row.contender, "status": row.status, "reason": row.reason}
    if row.status is not Status.OK:
        return told | {"raw_bytes": row.n_raw or ""}
    return {
        **told,
        "raw_bytes": row.n_raw,
        "packed_bytes": row.n_packed,
        "bits_per_byte": f"{row.bits_per_byte:.6g}",
        "model_bytes": row.model_bytes,
        "bits_per_byte_with_model": f"{row.bits_per_byte_with_model:.6g}",
        "break_even_bytes": "" if row.break_even is None else row.break_even,
        "best_opponent": row.best_opponent,
        "repeats": row.encode.seconds.repeats if row.encode else "",
        **_flat_way("encode", row.encode),
        **_flat_way("decode", row.decode),
        **row.settings,
    }


def _flat_way(name: str, way: Way | None) -> dict[str, Any]:
    if way is None:
        return {}
    speeds = [f"{speed:.6g}" for speed in (way.speed.p50, way.speed.p20, way.speed.p80)]
    others = [f"{way.seconds.p50:.6g}", f"{way.warm_up_seconds:.6g}", way.peak_bytes or "", way.gpu_peak_bytes or ""]
    return dict(zip((f"{name}_{column}" for column in _WAY_COLUMNS), [*speeds, *others], strict=True))
