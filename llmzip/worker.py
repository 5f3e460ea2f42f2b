"""A process that codes chunks for another one: jobs on its standard input, results on its standard output.

Both are a number, a second number, a length, and that many bytes. Of a job the second number is the raw length of the
chunk, and the bytes are the chunk, or its payload; of a result it is a `Status`. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from llmzip.errors import FormatError, ModelMismatchError, WorkerError

if TYPE_CHECKING:
    from llmzip.codec import Codec

# The number in results that answer no job: the process cannot work at all.
NO_JOB = (1 << 64) - 1
_HEAD = struct.Struct("<QQI")

# Starts a chunk and its raw length on their way to a payload, or back.
_Submit = Callable[[bytes, int], "Future[bytes]"]


class Status(IntEnum):
    """What a result is: bytes, or the words of an error; of `FormatError`, or of any other."""

    DONE = 0
    REFUSED = 1
    FAILED = 2


@dataclass(frozen=True)
class Setup:
    """What a worker does all its life.

    Attributes:
        encode: make payloads of chunks; else chunks of payloads.
        folder: of the artefact.
        artefact_id: what must be in it.
        canary: what the codec must compute, hexadecimal.
        window: tokens of a window.
        overlap: tokens that a window repeats.
        n_threads: threads of this process.
        n_lanes: chunks decoded side by side in this process.
        conditioners: the packed set that chunks choose from, hexadecimal; empty for none.
        chooser: what estimates their gains, packed, hexadecimal; empty for none.
        policy: how an encoder chooses.
        backend: what computes.
    """

    encode: bool
    folder: str
    artefact_id: str
    canary: str
    window: int
    overlap: int
    n_threads: int
    n_lanes: int
    conditioners: str = ""
    chooser: str = ""
    policy: str | int = "auto"
    backend: str = "cpu"

    @property
    def n_at_once(self) -> int:
        """Jobs that keep the process busy while results and further jobs are on their way."""
        return 2 + (self.n_threads if self.encode else self.n_lanes)

    def write(self, pipe: BinaryIO) -> None:
        """Send it to a process that has just been started."""
        Message(NO_JOB, 0, json.dumps(asdict(self)).encode()).write(pipe)

    @classmethod
    def read(cls, pipe: BinaryIO) -> Setup:
        """What the process is to do.

        Raises:
            WorkerError: the pipe ended before.
        """
        message = Message.read(pipe)
        if message is None:
            raise WorkerError("worker process: expected what to do, found the end of its input")
        return cls(**json.loads(message.data))


class Message(NamedTuple):
    """A job or a result."""

    number: int
    detail: int
    data: bytes

    def write(self, pipe: BinaryIO) -> None:
        """Send it."""
        pipe.write(_HEAD.pack(self.number, self.detail, len(self.data)) + self.data)
        pipe.flush()

    @classmethod
    def read(cls, pipe: BinaryIO) -> Message | None:
        """The next one; None at the end of the pipe, or where it breaks off."""
        head = pipe.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        number, detail, length = _HEAD.unpack(head)
        data = pipe.read(length)
        return cls(number, detail, data) if len(data) == length else None


def main() -> None:
    """Work until the input ends; the first message is the setup."""
    # Whoever gave the jobs decides when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, results = _take_standard_streams()
    try:
        setup = Setup.read(jobs)
        submit = _coder(setup)
    except Exception as error:  # noqa: BLE001 (standard error goes nowhere: the parent tells of any error, as its own)
        _error_message(NO_JOB, error).write(results)
        return
    # A thread of its own sends, so that jobs are always taken, however long nobody takes results.
    done: queue.SimpleQueue[tuple[int, Future[bytes]]] = queue.SimpleQueue()
    threading.Thread(target=_send_all, args=[done, results], daemon=True).start()
    while (job := Message.read(jobs)) is not None:
        future = submit(job.data, job.detail)
        future.add_done_callback(partial(_put, done, job.number))
    # Nobody is there any more to take what is not finished.
    os._exit(0)


def _put(done: queue.SimpleQueue[tuple[int, Future[bytes]]], number: int, future: Future[bytes]) -> None:
    done.put((number, future))


def _send_all(done: queue.SimpleQueue[tuple[int, Future[bytes]]], results: BinaryIO) -> None:
    """Send results as they come; if that cannot be done, the process ends, and whoever waits is told so."""
    try:
        while True:
            number, future = done.get()
            error = future.exception()
            result = Message(number, Status.DONE, future.result()) if error is None else _error_message(number, error)
            result.write(results)
    finally:
        os._exit(1)


def _error_message(number: int, error: BaseException) -> Message:
    status = Status.REFUSED if isinstance(error, FormatError) else Status.FAILED
    text = str(error) if status is Status.REFUSED else f"{type(error).__name__}: {error}"
    return Message(number, status, text.encode("utf-8", "replace"))


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for messages alone: what else is written there goes nowhere."""
    jobs, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return jobs, results


def _coder(setup: Setup) -> _Submit:
    from llmzip.codec import Codec
    from llmzip.exact.backend import load_backend
    from llmzip.lanes import LaneDecoder
    from llmzip.models.artefact import load_artefact
    from llmzip.windows import Windowing

    artefact = load_artefact(Path(setup.folder))
    if artefact.id != setup.artefact_id:
        raise ModelMismatchError(f"{setup.folder}: expected model {setup.artefact_id}, found {artefact.id} by now")
    codec = Codec(artefact, Windowing(setup.window, setup.overlap), load_backend(setup.backend))
    codec = _conditioned(codec, setup)
    if codec.canary().hex() != setup.canary:
        raise ModelMismatchError(f"canary: expected {setup.canary}, found {codec.canary().hex()}")
    if not setup.encode:
        return LaneDecoder(codec, setup.n_lanes, setup.n_threads).submit
    pool = ThreadPoolExecutor(setup.n_threads)
    return lambda raw, _n_raw: pool.submit(_encode, codec, raw)


def _conditioned(codec: Codec, setup: Setup) -> Codec:
    if not setup.conditioners:
        return codec
    import llmzip.conditioner_store  # noqa: F401 (says where networks of learned hyperpriors are)
    from llmzip.conditioning.chooser import Chooser
    from llmzip.conditioning.conditioner_set import ConditionerSet
    from llmzip.conditioning.conditioning import Conditioning, Policy

    body = bytes.fromhex(setup.conditioners)
    chooser = Chooser.unpack(bytes.fromhex(setup.chooser)) if setup.chooser else None
    policy = setup.policy if isinstance(setup.policy, int) else Policy(setup.policy)
    found = ConditionerSet.unpack(body, codec.artefact.spec)
    return codec.with_conditioning(Conditioning(found, body, chooser=chooser, policy=policy))


def _encode(codec: Codec, raw: bytes) -> bytes:
    return next(codec.encode(codec.tokenise([raw]), map))
