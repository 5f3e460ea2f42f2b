from __future__ import annotations

import csv
import json

from llmzip.bench.records import COLUMNS, HOW, Run, as_csv, as_json
from llmzip.bench.table import file_lines


def test_json_has_all_that_was_measured(run: Run) -> None:
    """Files with digests and origins, rows with figures of both ways, and how, where and by what."""
    facts = json.loads(as_json(run))
    assert [facts[key] for key in ("format", "date", "machine", "versions", "command", "how")] == [
        *(1, run.date, run.machine, run.versions, run.command, HOW)
    ]
    assert [(file["name"], file["sha256"], file["origin"]) for file in facts["files"]] == [
        ("one.txt", "ab" * 32, "unknown file, last changed 2026-01-02"),
        ("<b>two", "ab" * 32, "unknown file, last changed 2026-01-02"),
    ]
    own = facts["rows"][2]
    assert (own["bits_per_byte"], own["bits_per_byte_with_model"], own["break_even"]) == (2.4, 42.4, 50_000)
    assert (own["best_opponent"], own["settings"]["window"]) == ("small -9", 64)
    assert own["encode"]["speed"] == {"repeats": 1, "p20": 10.0, "p50": 10.0, "p80": 10.0}
    assert (own["decode"]["warm_up_seconds"], own["decode"]["peak_bytes"]) == (0.25, 20_000_000)
    assert [row["n_packed"] for row in facts["totals"]] == [650]


def test_json_keeps_what_went_wrong(run: Run) -> None:
    """With status and reason, and without any figure of it."""
    rows = [row for row in json.loads(as_json(run))["rows"] if row["status"] != "ok"]
    assert [(row["file"], row["status"], row["reason"]) for row in rows] == [
        ("<b>two", "wrong", "expected byte 1, found 2"),
        ("lost", "unreadable", "lost: No such file or directory"),
    ]
    assert not {"n_packed", "bits_per_byte", "encode"} & {key for row in rows for key in row}


def test_csv_has_a_line_for_each_row(run: Run) -> None:
    """The same figures under the same columns, empty where there are none."""
    rows = list(csv.DictReader(as_csv(run).splitlines()))
    assert len(rows) == len(run.rows)
    assert tuple(rows[0]) == COLUMNS
    own = rows[2]
    assert [own[key] for key in ("file", "contender", "packed_bytes", "bits_per_byte", "break_even_bytes")] == [
        *("one.txt", "small-model llmzip", "300", "2.4", "50000")
    ]
    assert [own[key] for key in ("encode_kb_per_s", "decode_s", "decode_peak_bytes", "window", "chunk_size")] == [
        *("10", "0.2", "20000000", "64", "512")
    ]
    assert (rows[0]["model_bytes"], rows[0]["break_even_bytes"], rows[0]["window"]) == ("0", "", "")
    assert (rows[3]["status"], rows[3]["packed_bytes"], rows[3]["encode_kb_per_s"]) == ("wrong", "", "")
    assert (rows[5]["status"], rows[5]["raw_bytes"], rows[5]["machine"]) == ("unreadable", "", run.machine)


def test_table_has_a_line_for_each_row(run: Run) -> None:
    """Under the file and what is known of it; reasons stand where figures would; settings come last."""
    lines = list(file_lines(run.texts[0], run.rows[:4]))
    assert lines[0] == "one.txt: 1,000 bytes; unknown file, last changed 2026-01-02"
    assert lines[1].split("  ")[0] == "compressor"
    assert [line.partition("  ")[0] for line in lines[2:6]] == ["fast -1", "small -9", "small-model llmzip", "fast -1"]
    assert lines[4].split()[2:6] == ["300", "2.400", "42.400", "50.0"]
    assert lines[5].split(maxsplit=2)[2] == "wrong: expected byte 1, found 2"
    assert lines[6].endswith("window 64, overlap 16, chunk size 512; break-even against small -9")
