from __future__ import annotations

import gc
import io
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import llmzip
import llmzip.encoding
import llmzip.model_decoders
from llmzip.archive import compress, compress_stream, decompress, verify_stream
from llmzip.encoding import StreamCompressor
from llmzip.errors import FormatError, ModelNotFoundError, WorkerError
from llmzip.format import read_frames
from llmzip.loading import load_codec
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.salvage import salvage_stream
from llmzip.worker import Setup
from llmzip.worker_pool import WorkerPool

pytestmark = pytest.mark.usefixtures("tiny_model")

OPTIONS = CompressOptions(model="tiny", window=64, chunk_size=600, threads=2, workers=0)
DECODE = DecompressOptions(threads=2, lanes=4, workers=0)


def _setup(*, encode: bool) -> Setup:
    codec = load_codec(OPTIONS)
    artefact, windowing, canary = codec.artefact, codec.windowing, codec.canary().hex()
    return Setup(encode, str(artefact.folder), artefact.id, canary, windowing.window, windowing.overlap, 1, 2)


@pytest.fixture
def encoders() -> Iterator[WorkerPool]:
    """Two processes that make payloads."""
    pool = WorkerPool(_setup(encode=True), 2)
    yield pool
    pool.close()


@pytest.fixture
def decoders() -> Iterator[WorkerPool]:
    """Two processes that make chunks of payloads."""
    pool = WorkerPool(_setup(encode=False), 2)
    yield pool
    pool.close()


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def _payloads(archive: bytes) -> list[bytes]:
    return [payload for frame in read_frames(io.BytesIO(archive)) for _, payload in frame.chunks()]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_archive_does_not_depend_on_the_workers(workers: int, sample_text: bytes) -> None:
    """Nor does what comes back."""
    content = sample_text[:5000] + bytes(range(256)) * 5 + sample_text[5000:9000]
    archive = compress(content, OPTIONS)
    assert compress(content, replace(OPTIONS, workers=workers)) == archive
    assert decompress(archive, replace(DECODE, workers=workers)) == content


def test_groups_keep_their_order(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """The next group is under way while one is written."""
    monkeypatch.setattr(llmzip.encoding, "GROUP_SIZE", 2000)
    archive = compress(sample_text[:12000], OPTIONS)
    assert compress(sample_text[:12000], replace(OPTIONS, workers=2)) == archive
    assert decompress(archive, DECODE) == sample_text[:12000]


def test_workers_begin_with_large_content(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """By default the first part of it is coded without."""
    started: list[bool] = []

    class Watched(WorkerPool):
        def __init__(self, setup: Setup, n_workers: int) -> None:
            started.append(setup.encode)
            super().__init__(setup, n_workers)

    monkeypatch.setattr("llmzip.worker_pool.WorkerPool", Watched)
    monkeypatch.setattr(llmzip.encoding, "GROUP_SIZE", 4000)
    monkeypatch.setattr(llmzip.model_decoders, "LARGE_INPUT", 4000)
    options, decode = replace(OPTIONS, workers=None), replace(DECODE, workers=None)
    small = compress(sample_text[:3900], options)
    assert decompress(small, decode) == sample_text[:3900]
    assert started == []
    large = compress(sample_text[:12000], options)
    assert started == [True]
    assert decompress(large, decode) == sample_text[:12000]
    assert started == [True, False]


def test_results_are_those_of_the_codec(encoders: WorkerPool, decoders: WorkerPool, sample_text: bytes) -> None:
    """Whichever process made them, and however many wait."""
    chunks = [sample_text[i * 100 : i * 100 + 90] for i in range(40)]
    codec = load_codec(OPTIONS)
    expected = list(codec.encode(codec.tokenise(chunks), map))
    payloads = [future.result(60) for future in [encoders.submit(raw, len(raw)) for raw in chunks]]
    assert payloads == expected
    futures = [decoders.submit(payload, len(raw)) for payload, raw in zip(payloads, chunks, strict=True)]
    assert [future.result(60) for future in futures] == chunks


def test_a_payload_that_is_none_is_refused(decoders: WorkerPool, sample_text: bytes) -> None:
    """The others are decoded all the same."""
    codec = load_codec(OPTIONS)
    raw = sample_text[:500]
    payload = next(codec.encode(codec.tokenise([raw]), map))
    good = decoders.submit(payload, len(raw))
    bad = decoders.submit(payload[:3], len(raw) + 1000)
    with pytest.raises(FormatError):
        bad.result(60)
    assert good.result(60) == raw


def test_damage_is_told_as_without_workers(sample_text: bytes) -> None:
    """The same chunks, the same words."""
    archive = bytearray(compress(sample_text[:6000], OPTIONS))
    archive[len(archive) // 2] ^= 1

    def errors(workers: int) -> list[tuple[int, str]]:
        found = verify_stream(io.BytesIO(bytes(archive)), replace(DECODE, workers=workers))
        return [(place.offset, str(error)) for place, error in found]

    assert errors(2) == errors(0) != []


def test_a_killed_worker_is_an_error(encoders: WorkerPool, sample_text: bytes) -> None:
    """For all chunks that are not done and all that come later; nobody waits forever."""
    futures = [encoders.submit(sample_text, len(sample_text)) for _ in range(50)]
    os.kill(encoders.process_ids[0], signal.SIGKILL)
    errors = [future.exception(30) for future in futures]
    assert isinstance(errors[-1], WorkerError)
    assert "signal 9" in str(errors[-1])
    with pytest.raises(WorkerError):
        encoders.submit(b"more", 4).result(30)


def test_compress_ends_when_a_worker_dies(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """The error names what happened, and all processes are gone."""
    pools: list[WorkerPool] = []

    class Doomed(WorkerPool):
        def __init__(self, setup: Setup, n_workers: int) -> None:
            super().__init__(setup, n_workers)
            pools.append(self)
            os.kill(self.process_ids[-1], signal.SIGKILL)

    monkeypatch.setattr("llmzip.worker_pool.WorkerPool", Doomed)
    start = time.monotonic()
    with pytest.raises(WorkerError):
        compress_stream(io.BytesIO(sample_text), io.BytesIO(), replace(OPTIONS, workers=2))
    archive = compress(sample_text, OPTIONS)
    with pytest.raises(WorkerError):
        decompress(archive, replace(DECODE, workers=2))
    assert time.monotonic() - start < 60
    assert [pid for pool in pools for pid in pool.process_ids if _is_running(pid)] == []


def test_a_worker_that_cannot_begin_is_an_error(tmp_path: os.PathLike[str]) -> None:
    """It says why."""
    pool = WorkerPool(replace(_setup(encode=True), folder=os.fspath(tmp_path)), 1)
    try:
        with pytest.raises(WorkerError, match=ModelNotFoundError.__name__):
            pool.submit(b"text", 4).result(60)
    finally:
        pool.close()


def test_a_model_that_changed_meanwhile_is_refused(tiny_home: Path, tmp_path: Path, sample_text: bytes) -> None:
    """Workers may start long after the model was read; another one in its place would write what nobody can read."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_home / "models" / "tiny", folder)
    with StreamCompressor(io.BytesIO(), replace(OPTIONS, model=str(folder), workers=1)) as compressor:
        tensors = load_file(folder / "tensors.safetensors")
        tensors["layers.0.q.q"] = tensors["layers.0.q.q"][::-1].copy()
        save_file(tensors, folder / "tensors.safetensors")
        compressor.write(sample_text[:2000])
        with pytest.raises(WorkerError, match="ModelMismatchError"):
            compressor.finish()


def test_another_canary_is_refused() -> None:
    """So is a machine that computes something else."""
    pool = WorkerPool(replace(_setup(encode=True), canary="0000"), 1)
    try:
        with pytest.raises(WorkerError, match="canary: expected 0000"):
            pool.submit(b"text", 4).result(60)
    finally:
        pool.close()


def test_pools_that_nobody_has_end() -> None:
    """And those of compressors that nobody has."""
    pool = WorkerPool(_setup(encode=True), 1)
    compressor = llmzip.Compressor(replace(OPTIONS, workers=1))
    compressor._stream._begin_group([b"text to be coded " * 30], large=False)
    workers = compressor._stream._workers
    assert workers is not None
    process_ids = [*pool.process_ids, *workers.process_ids]
    assert all(map(_is_running, process_ids))
    del pool, compressor, workers
    gc.collect()
    assert not any(map(_is_running, process_ids))


def test_errors_in_a_receiving_thread_are_told(
    encoders: WorkerPool, monkeypatch: pytest.MonkeyPatch, sample_text: bytes
) -> None:
    """Nobody waits for a result that cannot be taken."""

    def _read(_pipe: object) -> None:
        raise MemoryError("no memory for a result")

    futures = [encoders.submit(sample_text, len(sample_text)) for _ in range(9)]
    monkeypatch.setattr("llmzip.worker_pool.Message.read", _read)
    with pytest.raises(WorkerError, match="no memory for a result"):
        [future.result(60) for future in futures]


def test_pools_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ours, with the system's words."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(WorkerError, match="No such file"):
        WorkerPool(_setup(encode=True), 2)


def test_salvage_uses_no_processes_for_trials(monkeypatch: pytest.MonkeyPatch, sample_text: bytes) -> None:
    """What may be no chunk at all is decoded here."""
    archive = bytearray(compress(sample_text[:6000], OPTIONS))
    places = [place for frame in read_frames(io.BytesIO(bytes(archive))) for place in frame.places()]
    archive[places[3].offset] ^= 0x40
    n_started = 0

    class Counted(WorkerPool):
        def __init__(self, setup: Setup, n_workers: int) -> None:
            nonlocal n_started
            n_started += 1
            super().__init__(setup, n_workers)

    monkeypatch.setattr("llmzip.worker_pool.WorkerPool", Counted)
    target, expected = io.BytesIO(), io.BytesIO()
    losses = salvage_stream(io.BytesIO(bytes(archive)), target, replace(DECODE, workers=1))
    assert n_started == 1
    assert losses == salvage_stream(io.BytesIO(bytes(archive)), expected, DECODE) != []
    assert target.getvalue() == expected.getvalue()


def test_closing_ends_the_processes(sample_text: bytes) -> None:
    """Though they have work left."""
    pool = WorkerPool(_setup(encode=True), 2)
    for _ in range(20):
        pool.submit(sample_text, len(sample_text))
    pool.close()
    assert [pid for pid in pool.process_ids if _is_running(pid)] == []
