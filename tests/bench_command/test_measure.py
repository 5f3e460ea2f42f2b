from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from llmzip.bench import measure as measuring
from llmzip.bench.child import Job, Report
from llmzip.bench.contenders import Kind, Reference, against, default_opponents, missing
from llmzip.bench.corpora import Text
from llmzip.bench.libraries import LIBRARIES
from llmzip.bench.measure import RAW, measure, run_child
from llmzip.bench.memory import own_peak
from llmzip.bench.rows import Row, Status
from llmzip.errors import WorkerError
from llmzip.models.store import StoredModel

PYTHON = sys.executable


def _measure(source: tuple[Text, Path], references: list[Reference], repeats: int = 1) -> list[Row]:
    return measure(source[0], references, source[1], repeats, lambda _: None)


def test_decoders_that_give_other_bytes_are_found_out(source: tuple[Text, Path]) -> None:
    """Changed, shortened, lengthened: each row says where; nothing is claimed of its size or speed."""
    rows = _measure(source, [against("tr a-z A-Z ; cat"), against("cat ; head -c 100"), against("cat ; cat {in} {in}")])
    assert [(row.status, row.reason, row.exit_code) for row in rows] == [
        (Status.WRONG, "decode: expected byte 116 at offset 1, found 84", 30),
        (Status.WRONG, "decode: expected 1920 bytes, found 100", 30),
        (Status.WRONG, "decode: expected 1920 bytes, found 3840", 30),
    ]
    assert all((row.n_packed, row.encode, row.decode) == (0, None, None) for row in rows)


def test_contenders_that_fail_or_are_missing_have_rows(source: tuple[Text, Path]) -> None:
    """In their places, with the reason; a default opponent that is missing is no failure."""
    absent = Reference(Kind.COMMAND, "no-such-program ; cat")
    failing = against(f"""cat ; {PYTHON} -c "import sys; sys.exit('out of luck')" """)
    rows = _measure(source, [absent, failing, against("no-such-program ; cat"), against("zlib")])
    assert [(row.status, row.exit_code) for row in rows] == [
        (Status.MISSING, 0),
        (Status.FAILED, WorkerError.exit_code),
        (Status.MISSING, 40),
        (Status.OK, 0),
    ]
    assert rows[0].reason == "expected the program no-such-program on PATH, found none"
    assert rows[1].reason.endswith("expected exit status 0, found 1: out of luck")


def test_sizes_are_the_same_in_two_runs(source: tuple[Text, Path], tmp_path: Path) -> None:
    """Of every opponent that is here, at other times and in other folders."""
    references = [reference for reference in default_opponents() if missing(reference) is None]
    first = _measure(source, references)
    time.sleep(1.1)
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    (other / RAW).write_bytes((source[1] / RAW).read_bytes())
    second = _measure((source[0], other), references)
    assert len(first) >= len([name for name in LIBRARIES if name != "ppmd"])
    assert {row.status for row in first} == {Status.OK}
    assert [(row.contender, row.n_packed) for row in first] == [(row.contender, row.n_packed) for row in second]


def test_llmzip_is_measured_as_any_other(source: tuple[Text, Path], tiny_model: StoredModel) -> None:
    """Twice with the same archive; its model, windows and chunks are told, and from where on the model pays."""
    zlib, own = _measure(source, [against("zlib"), Reference(Kind.MODEL, "tiny", threads=1)], repeats=2)
    assert (own.status, own.contender, own.model_bytes) == (Status.OK, "llmzip, tiny", tiny_model.size_bytes)
    assert own.settings == {"device": "cpu", "threads": 1, "chunk_size": 8192} | (
        {"window": 128, "overlap": 8} if "window" in own.settings else {}
    )
    assert own.best_opponent == "zlib -9"
    assert own.encode is not None
    assert zlib.encode is not None
    assert (own.encode.seconds.repeats, zlib.encode.seconds.repeats) == (2, 2)
    # The model was loaded before the clock went.
    assert own.encode.warm_up_seconds > 10 * zlib.encode.warm_up_seconds


def test_another_archive_of_the_same_bytes_is_wrong(
    source: tuple[Text, Path], monkeypatch: pytest.MonkeyPatch, tiny_model: StoredModel
) -> None:
    """The archives of llmzip do not depend on the run."""
    del tiny_model
    n_runs = 0

    def stand_in(job: Job) -> Report:
        nonlocal n_runs
        n_runs += 1
        data = Path(job.source).read_bytes()
        Path(job.target).write_bytes(data[1:] if job.decode else bytes([n_runs]) + data)
        return Report("stand-in", 0, 9, 0.1, 0.0, None, None, {})

    monkeypatch.setattr(measuring, "run_child", stand_in)
    rows = _measure(source, [Reference(Kind.MODEL, "tiny"), against("cat ; cat")], repeats=2)
    assert [row.status for row in rows] == [Status.WRONG, Status.OK]
    assert rows[0].reason == "encode: expected the archive of the first run, found another one"


def test_the_best_of_several_settings_is_measured(source: tuple[Text, Path]) -> None:
    """Its name tells which one, and its memory is its own."""
    pytest.importorskip("pyppmd")
    (row,) = _measure(source, [against("ppmd")])
    raw = (source[1] / RAW).read_bytes()
    sizes = {library.name: len(library.compress(raw)) for library in LIBRARIES["ppmd"].variants}
    assert row.n_packed == sizes[row.contender] == min(sizes.values())


@pytest.mark.skipif(own_peak() is None, reason="this system does not tell")
def test_memory_of_a_program_is_seen(source: tuple[Text, Path]) -> None:
    """One that takes 150 MB to compress and next to nothing to decompress."""
    taking = f"{PYTHON} -c 'import sys; x = bytearray(150000000); sys.stdout.write(sys.stdin.read())'"
    (row,) = _measure(source, [against(f"{taking} ; cat")])
    assert row.encode is not None
    assert row.decode is not None
    assert 150_000_000 < (row.encode.peak_bytes or 0) < 250_000_000
    assert (row.decode.peak_bytes or 0) < 60_000_000


def test_nothing_is_left_beside_the_file(source: tuple[Text, Path]) -> None:
    """Archives and restored files are removed after each run."""
    _measure(source, [against("zlib"), against("cat ; head -c 1")])
    assert [path.name for path in source[1].iterdir()] == [RAW]


def test_child_that_breaks_is_told_by_its_last_line(tmp_path: Path) -> None:
    """An error that nobody foresaw, such as a payload that is none."""
    (tmp_path / "packed").write_bytes(b"no payload")
    job = Job(against("zlib"), str(tmp_path / "packed"), str(tmp_path / "out"), decode=True, n_raw=10, variant=0)
    with pytest.raises(WorkerError, match=r"^decode: zlib.error: Error -3"):
        run_child(job)
    assert Job.load(job.dump()) == job
