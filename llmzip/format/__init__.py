"""The container: what stands in a `.llmz` file, byte by byte. `SPEC.md` beside this file is the normative text."""

from __future__ import annotations

from llmzip.format.chunk_record import ChunkRecord, Method
from llmzip.format.container import ChunkPlace, FrameReader, FrameWriter, read_frames
from llmzip.format.header import Header
from llmzip.format.index import FrameIndex, FrameSummary, scan
from llmzip.format.sections import Sections

__all__ = [
    "ChunkPlace",
    "ChunkRecord",
    "FrameIndex",
    "FrameReader",
    "FrameSummary",
    "FrameWriter",
    "Header",
    "Method",
    "Sections",
    "read_frames",
    "scan",
]
