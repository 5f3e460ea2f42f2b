"""How to compress and decompress: what a caller may choose, checked when it is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzip.defaults import DEFAULT_LANES, DEVICES, MAX_WORKERS
from llmzip.errors import ConfigError
from llmzip.format.limits import MAX_MODEL_RAW_LENGTH

if TYPE_CHECKING:
    from llmzip.conditioning.conditioning import ChunkTrainer
    from llmzip.conditioning.network import HyperpriorNetwork
    from llmzip.models.artefact import Artefact
    from llmzip.windows import Windowing

    MakeTrainer = Callable[[Artefact, Windowing, HyperpriorNetwork | None], ChunkTrainer]


@dataclass(frozen=True)
class CodingOptions:
    """What may be used; nothing of this changes a result.

    Attributes:
        model: name, id or path of the model; None means the one that an archive names, or the bundled one.
        threads: None means one a core.
        lanes: chunks decoded at once, all threads together; None means 64.
        workers: processes that code chunks and share the threads and lanes, at most 256; 0 for none. None means none
            for content of up to 4 MiB and for large models, else one a thread.
        conditioners: a file, or an entry of the store, that holds conditioners; for decompression where the archive
            names it. None means the codebook of the model, if there is one, or what the archive names.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one that can be used.
        memory: bytes to use at most, as they are estimated, with one model: there are fewer lanes, threads and workers
            where they would take more, and chunks that need more are refused. None means no limit.
    """

    model: str | None = None
    threads: int | None = None
    lanes: int | None = None
    workers: int | None = None
    memory: int | None = None
    conditioners: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ConfigError(f"device: expected {', '.join(DEVICES)}, found {self.device!r}")
        for name, least in (("threads", 1), ("lanes", 1), ("workers", 0), ("memory", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}: expected at least {least}, found {value}")
        if self.workers is not None and self.workers > MAX_WORKERS:
            raise ConfigError(f"workers: expected at most {MAX_WORKERS}, found {self.workers}")

    @property
    def n_threads(self) -> int:
        """Threads to use."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def n_lanes(self) -> int:
        """Lanes to use."""
        return self.lanes or DEFAULT_LANES


@dataclass(frozen=True)
class DecompressOptions(CodingOptions):
    """How to decode; the archive itself says all that matters for the result.

    Attributes:
        max_size: bytes of content above which an archive is refused, before they are written; None means no limit.
    """

    max_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_size is not None and self.max_size < 0:
            raise ConfigError(f"max size: expected at least 0, found {self.max_size}")


@dataclass(frozen=True)
class CompressOptions(CodingOptions):
    """How to encode.

    Attributes:
        chunk_size: greatest size of a chunk in bytes; None means 32 KiB, with small models 16 to 32
            KiB as the lanes ask for, and at most 64 times the window.
        window: tokens that the model sees at once, a power of two; None means what the model allows, at most 1,024.
        overlap: tokens of the text before that a window begins with; None means a quarter of the window, with small
            models a sixteenth.
        conditioner: `auto`, the conditioner that is estimated to save most for each chunk, or none; `best`, the one
            that does, tried out; `none`; or the number or name of the entry that all chunks get.
        embed: whether the archive holds the conditioners of `conditioners`; else it names them.
        chunk_trainer: given the model, its windows and the network of its learned hyperprior, if there is one, makes
            what trains vectors for a chunk; a chunk brings those that pay. There are no other conditioners and no
            worker processes then.
    """

    chunk_size: int | None = None
    window: int | None = None
    overlap: int | None = None
    conditioner: str = "auto"
    embed: bool = False
    chunk_trainer: MakeTrainer | None = None

    def embedding(self, conditioners: str) -> CompressOptions:
        """The same, with a file of conditioners that goes into the archive."""
        return replace(self, conditioners=conditioners, embed=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed and (self.conditioners is None or self.conditioner == "none"):
            raise ConfigError("embed: expected a file of conditioners to embed, found none")
        if self.chunk_trainer is not None and (self.conditioners is not None or self.conditioner != "auto"):
            raise ConfigError("vectors of chunks: expected no other conditioners, found some")
        if self.chunk_trainer is not None and self.workers:
            raise ConfigError(f"vectors of chunks: expected no worker processes, found {self.workers}")
        if self.chunk_size is not None and not 1 <= self.chunk_size <= MAX_MODEL_RAW_LENGTH:
            raise ConfigError(f"chunk size: expected 1 to {MAX_MODEL_RAW_LENGTH} bytes, found {self.chunk_size}")
