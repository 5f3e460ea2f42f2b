"""Turns shards of text into token files: decides what is trained on and what is held out.

A shard is one zstd frame of UTF-8 documents joined by NUL bytes. The last documents of every shard
are held out, always the same ones; everything else is shuffled into one stream of tokens, with the
end-of-document token between documents. How windows are cut from that stream is left to `windows`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zstandard
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_DOCUMENT = 0
HELD_OUT_SHARE = 0.02
HELD_OUT_BYTES = 220_000
ENCODE_BATCH = 512


@dataclass(frozen=True)
class Shard:
    """One shard, split for good into documents to train on and documents to measure on."""

    name: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """The held-out tokens of one shard, and how many bytes of text they stand for."""

    name: str
    tokens: NDArray[np.uint16]
    n_bytes: int


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus: one training stream and the held-out text by shard."""

    tokens: NDArray[np.uint16]
    held_out: tuple[HeldOut, ...]


def read_shards(folder: Path) -> Iterator[Shard]:
    """Read every `*.txt.zst` of `folder`, in the order of their names.

    Raises:
        FileNotFoundError: `folder` holds no shard.
    """
    paths = sorted(folder.glob("*.txt.zst"))
    if not paths:
        raise FileNotFoundError(f"training data: expected *.txt.zst in {folder}, found none")
    for path in paths:
        text = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode()
        train, held_out = split_documents(text.split("\0"))
        yield Shard(path.name.removesuffix(".txt.zst"), train, held_out)


def split_documents(documents: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split off the last documents: at most 2 % of them and about 220 KB, at least one of several.

    The split depends on the documents alone, so no run can train on what another measures on.
    """
    most = max(1, int(len(documents) * HELD_OUT_SHARE))
    first = len(documents)
    n_bytes = 0
    while first > 1 and len(documents) - first < most and n_bytes < HELD_OUT_BYTES:
        first -= 1
        n_bytes += len(documents[first].encode())
    return tuple(documents[:first]), tuple(documents[first:])


def prepare_corpus(data: Path, tokenizer: Tokenizer, folder: Path, seed: int) -> None:
    """Tokenise the shards in `data` into `folder`: `tokens.bin`, `held_out/*.bin`, `corpus.json`.

    Args:
        data: folder of shards.
        tokenizer: a tokenizer of fewer than `2**16` tokens, with `<|endoftext|>` as id 0.
        folder: made when missing. `corpus.json` is written last: its presence says "complete".
        seed: order of the documents in the training stream.
    """
    (folder / "held_out").mkdir(parents=True, exist_ok=True)
    documents: list[str] = []
    held_out_bytes: dict[str, int] = {}
    for shard in read_shards(data):
        documents += shard.train
        held_out_bytes[shard.name] = sum(len(text.encode()) for text in shard.held_out)
        _write_tokens(folder / "held_out" / f"{shard.name}.bin", shard.held_out, tokenizer)
    random.Random(seed).shuffle(documents)
    n_tokens = _write_tokens(folder / "tokens.bin", documents, tokenizer)
    facts = {"n_tokens": n_tokens, "seed": seed, "held_out_bytes": held_out_bytes}
    (folder / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n")


def load_corpus(folder: Path) -> Corpus:
    """Map the token files that `prepare_corpus` wrote."""
    facts = json.loads((folder / "corpus.json").read_text())
    held_out = tuple(
        HeldOut(name, np.fromfile(folder / "held_out" / f"{name}.bin", dtype=np.uint16), n_bytes)
        for name, n_bytes in facts["held_out_bytes"].items()
    )
    return Corpus(np.memmap(folder / "tokens.bin", dtype=np.uint16, mode="r"), held_out)


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[NDArray[np.uint16]]:
    """Tokenise documents, each followed by the end-of-document token.

    `<|endoftext|>` spelled in a document stays ordinary text: only a boundary becomes the token.
    """
    batch: list[str] = []
    for document in documents:
        batch.append(document)
        if len(batch) == ENCODE_BATCH:
            yield from _encode_batch(batch, tokenizer)
            batch = []
    yield from _encode_batch(batch, tokenizer)


def _encode_batch(batch: list[str], tokenizer: Tokenizer) -> Iterator[NDArray[np.uint16]]:
    for encoding in tokenizer.encode_batch_fast(batch):
        yield np.array([*encoding.ids, END_OF_DOCUMENT], dtype=np.uint16)


def _write_tokens(path: Path, documents: Iterable[str], tokenizer: Tokenizer) -> int:
    n_tokens = 0
    with path.open("wb") as file:
        for tokens in encode_documents(documents, tokenizer):
            file.write(tokens.tobytes())
            n_tokens += len(tokens)
    return n_tokens
