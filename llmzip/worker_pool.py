"""Worker processes that code chunks: jobs go to whoever has least to do, results come back as futures.

The processes know nothing of each other and see a chunk at a time, so that their number does not show in the archive.
They end with the pipe that they take their jobs from, however this process ends. One that ends before is an error of
all chunks that were not done: nobody waits for them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO, BinaryIO, cast

from llmzip.errors import FormatError, LlmzipError, WorkerError
from llmzip.worker import NO_JOB, Message, Setup, Status

_START = "import sys; sys.path[:] = sys.argv[1:]; from llmzip.worker import main; main()"


@dataclass(eq=False)
class _Worker:
    """A process, and the jobs that it has."""

    process: subprocess.Popen[bytes]
    jobs: IO[bytes]
    results: IO[bytes]
    futures: dict[int, Future[bytes]] = field(default_factory=dict)


class WorkerPool:
    """Processes that all do the same; they end when the pool is closed or nobody has it any more.

    Args:
        setup: what each of them does.
        n_workers: how many.

    Raises:
        WorkerError: they cannot be started.
    """

    def __init__(self, setup: Setup, n_workers: int) -> None:
        self._work = _Work(setup.n_at_once)
        self._finalizer = weakref.finalize(self, self._work.close)
        try:
            for _ in range(n_workers):
                self._work.add(_start(setup))
        except (OSError, RuntimeError) as error:
            self.close()
            raise WorkerError(f"worker process: expected to start {n_workers}, found {error}") from error

    @property
    def process_ids(self) -> list[int]:
        """Of all workers."""
        return [worker.process.pid for worker in self._work.workers]

    def submit(self, data: bytes, raw_length: int) -> Future[bytes]:
        """Queue a chunk, or a payload; the future gives the other one.

        It raises `FormatError` for a payload that cannot be one, and `WorkerError` where a worker has ended.
        """
        return self._work.submit(data, raw_length)

    def close(self) -> None:
        """End the processes; what they have not done never will be."""
        self._finalizer()


class _Work:
    """What the threads that receive results share with the pool: they do not keep that itself."""

    def __init__(self, n_at_once: int) -> None:
        self._n_at_once = n_at_once
        # Held for all that follows; once more by a thread that has it, if the pool is let go there.
        self._lock = threading.RLock()
        self._waiting: deque[tuple[Message, Future[bytes]]] = deque()
        self._n_jobs = 0
        self._error: LlmzipError | None = None
        self.workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []

    def add(self, worker: _Worker) -> None:
        """Take a worker in."""
        self.workers.append(worker)
        thread = threading.Thread(target=self._receive, args=[worker], daemon=True)
        thread.start()
        self._threads.append(thread)

    def submit(self, data: bytes, raw_length: int) -> Future[bytes]:
        """See `WorkerPool.submit`."""
        future: Future[bytes] = Future()
        with self._lock:
            if self._error is not None:
                future.set_exception(self._error)
                return future
            self._waiting.append((Message(self._n_jobs, raw_length, data), future))
            self._n_jobs += 1
            self._hand_out()
        return future

    def close(self) -> None:
        """See `WorkerPool.close`. Killed first: whoever holds the lock may wait for a process."""
        for worker in self.workers:
            worker.process.kill()
        self._fail(WorkerError("worker processes: expected open ones, found them closed"))
        for worker in self.workers:
            worker.process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for worker in self.workers:
            worker.results.close()
            with contextlib.suppress(OSError):
                worker.jobs.close()

    def _hand_out(self) -> None:
        """Give the workers what they have room for. They always take their jobs, so that this does not wait long."""
        while self._waiting:
            worker = min(self.workers, key=lambda worker: len(worker.futures))
            if len(worker.futures) >= self._n_at_once:
                return
            job, future = self._waiting.popleft()
            worker.futures[job.number] = future
            try:
                job.write(worker.jobs)  # type: ignore[arg-type]
            except OSError:
                # It has ended: who reads its results fails the job with all others.
                return

    def _receive(self, worker: _Worker) -> None:
        """Take a worker's results until there are no more; then nobody waits any longer."""
        try:
            error = self._settle_results(worker)
        except BaseException as unexpected:  # noqa: BLE001 (whoever waits for results raises it)
            error = WorkerError(f"worker process {worker.process.pid}: {type(unexpected).__name__}: {unexpected}")
        self._fail(error)

    def _settle_results(self, worker: _Worker) -> WorkerError:
        while (result := Message.read(worker.results)) is not None:  # type: ignore[arg-type]
            if result.number == NO_JOB:
                return WorkerError(f"worker process: {result.data.decode()}")
            with self._lock:
                future = worker.futures.pop(result.number, None)
                self._hand_out()
            if future is not None:
                _settle(future, result)
        code = worker.process.wait()
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return WorkerError(f"worker process {worker.process.pid} ended before its work ({reason})")

    def _fail(self, error: WorkerError) -> None:
        """Give an error to all who wait or will."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            futures = [future for _, future in self._waiting]
            futures += [future for worker in self.workers for future in worker.futures.values()]
            self._waiting.clear()
            for worker in self.workers:
                worker.futures.clear()
        for future in futures:
            future.set_exception(error)


def _start(setup: Setup) -> _Worker:
    """Start a process that the keyboard does not interrupt, with the modules of this one."""
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    setup.write(cast(BinaryIO, process.stdin))
    return _Worker(process, process.stdin, process.stdout)


def _settle(future: Future[bytes], result: Message) -> None:
    if result.detail == Status.DONE:
        future.set_result(result.data)
    elif result.detail == Status.REFUSED:
        future.set_exception(FormatError(result.data.decode()))
    else:
        future.set_exception(WorkerError(f"worker process: {result.data.decode()}"))
