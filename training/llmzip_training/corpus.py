"""Turns shards of text into token files, and maps them: decides what is trained on and in which order.

The training documents of all shards are shuffled into one stream of tokens, with the end-of-document token after
each; held-out text is apart, by shard. Token files lie in a cache, in a folder named by the digest of all that went
into them, so runs with equal inputs share them and a changed input never meets old tokens. One shard at a time is
in memory. Which documents are held out is decided by `shards`, how windows are cut from the stream by `windows`.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ConfigError, FileError
from llmzip_training.config import build
from llmzip_training.files import read_json, write_whole
from llmzip_training.shards import HELD_OUT_BYTES, HELD_OUT_SHARE, digest_file, read_shard, shard_paths
from llmzip_training.tokenizer import END_OF_TEXT, MAX_VOCAB_SIZE, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_DOCUMENT = 0
ENCODE_BATCH = 512
# Part of the digest: raised when the same inputs are to give other token files.
LAYOUT = 1

Tokens = NDArray[np.uint16]


@dataclass(frozen=True)
class HeldOut:
    """The held-out tokens of one shard, and how many bytes of text they stand for."""

    name: str
    tokens: Tokens
    n_bytes: int


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus.

    Attributes:
        tokens: the training stream, memory-mapped.
        held_out: held-out text by shard.
        bytes_per_token: mean length of a token of the training stream, boundaries left out.
        digest: of everything that the corpus was made from, in hex.
    """

    tokens: Tokens
    held_out: tuple[HeldOut, ...]
    bytes_per_token: float = 1.0
    digest: str = ""


@dataclass(frozen=True)
class HeldOutFacts:
    """How long the held-out text of a shard is."""

    n_tokens: int
    n_bytes: int


@dataclass(frozen=True)
class CorpusFacts:
    """What `corpus.json` says of the token files beside it."""

    n_tokens: int
    n_documents: int
    n_bytes: int
    held_out: dict[str, HeldOutFacts]


def prepare_corpus(data: Path, tokenizer: Path, cache: Path, seed: int, shares: Mapping[str, float]) -> Path:
    """Tokenise the shards in `data`, unless the cache has them, and return the folder of the token files.

    Args:
        data: folder of shards.
        tokenizer: a tokenizer file of at most `2**16` tokens, with `<|endoftext|>` as id 0.
        cache: where the folder is, or will be.
        seed: order of the documents in the training stream.
        shares: of each shard that is named only so much of its training documents, its first.

    Raises:
        ConfigError: the tokenizer does not fit, or a share is of no shard.
        FileError: a shard is damaged.
    """
    check_shares(data, shares)
    folder = cache / f"corpus-{_digest(data, tokenizer, seed, shares)[:32]}"
    if not (folder / "corpus.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="unfinished-", ignore_cleanup_errors=True) as unfinished:
            _write_corpus(data, checked_tokenizer(tokenizer), Path(unfinished), seed, shares)
            _publish(Path(unfinished), folder)
    return folder


def load_corpus(folder: Path) -> Corpus:
    """Map the token files that `prepare_corpus` wrote.

    Raises:
        FileError: one has not the length that it was written with.
        ConfigError: what is written about them is damaged.
    """
    path = folder / "corpus.json"
    try:
        facts = build(CorpusFacts, read_json(path, "corpus"), f"{path}: corpus")
    except ConfigError as error:
        raise ConfigError(f"{error}; remove {folder}") from error
    held_out = tuple(
        HeldOut(name, np.array(_mapped(folder / "held_out" / f"{name}.bin", shard.n_tokens)), shard.n_bytes)
        for name, shard in facts.held_out.items()
    )
    tokens = _mapped(folder / "tokens.bin", facts.n_tokens)
    n_text_tokens = facts.n_tokens - facts.n_documents
    return Corpus(tokens, held_out, facts.n_bytes / max(n_text_tokens, 1), folder.name)


def check_shares(data: Path, shares: Mapping[str, float]) -> None:
    """Refuse a share that belongs to no shard, as a misspelt one does."""
    names = shard_paths(data).keys()
    if unknown := sorted(shares.keys() - names):
        raise ConfigError(f"corpus.shares: expected shards of {data} ({', '.join(names)}), found {', '.join(unknown)}")


def checked_tokenizer(path: Path, vocab_size: int = MAX_VOCAB_SIZE) -> Tokenizer:
    """Load a tokenizer of at most `vocab_size` tokens, its token 0 the document boundary.

    Raises:
        ConfigError: it is none, it has more tokens or greater ids, or another token 0.
    """
    tokenizer = load_tokenizer(path)
    n_tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
    if n_tokens > vocab_size:
        raise ConfigError(f"{path}: expected at most {vocab_size} tokens, found {n_tokens}")
    if tokenizer.token_to_id(END_OF_TEXT) != END_OF_DOCUMENT:
        raise ConfigError(f"{path}: expected {END_OF_TEXT} as token 0, found {tokenizer.id_to_token(0)!r}")
    return tokenizer


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Tokens]:
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


def _encode_batch(batch: list[str], tokenizer: Tokenizer) -> Iterator[Tokens]:
    for encoding in tokenizer.encode_batch_fast(batch):
        yield np.array([*encoding.ids, END_OF_DOCUMENT], dtype=np.uint16)


def _digest(data: Path, tokenizer: Path, seed: int, shares: Mapping[str, float]) -> str:
    inputs = {
        "layout": LAYOUT,
        "held_out": [HELD_OUT_SHARE, HELD_OUT_BYTES],
        "shards": {name: digest_file(path) for name, path in shard_paths(data).items()},
        "tokenizer": digest_file(tokenizer),
        "seed": seed,
        "shares": dict(shares),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _publish(unfinished: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another run has finished the same one meanwhile."""
    unfinished.chmod(0o755)
    try:
        unfinished.rename(folder)
    except OSError:
        if not (folder / "corpus.json").exists():
            raise


def _write_corpus(data: Path, tokenizer: Tokenizer, folder: Path, seed: int, shares: Mapping[str, float]) -> None:
    """Fill `folder`: tokens of each shard's documents first, then all of them in the shuffled order."""
    (folder / "held_out").mkdir()
    parts: list[tuple[Path, list[int]]] = []
    held_out: dict[str, HeldOutFacts] = {}
    n_bytes = 0
    for name, path in shard_paths(data).items():
        shard = read_shard(name, path)
        documents = shard.train[: round(len(shard.train) * shares.get(name, 1.0))]
        n_bytes += _count_bytes(documents)
        parts.append((folder / f"{name}.part", _write_tokens(folder / f"{name}.part", documents, tokenizer)))
        lengths = _write_tokens(folder / "held_out" / f"{name}.bin", shard.held_out, tokenizer)
        held_out[name] = HeldOutFacts(sum(lengths), _count_bytes(shard.held_out))
    n_documents = sum(len(lengths) for _, lengths in parts)
    n_tokens = _gather(parts, folder / "tokens.bin", seed)
    facts = CorpusFacts(n_tokens, n_documents, n_bytes, held_out)
    write_whole(folder / "corpus.json", f"{json.dumps(asdict(facts), indent=1)}\n".encode())


def _gather(parts: list[tuple[Path, list[int]]], path: Path, seed: int) -> int:
    """Write the documents of all parts in shuffled order, remove the parts, and return the number of tokens."""
    maps = [_mapped(part, sum(lengths)) for part, lengths in parts]
    places = [
        (i_part, end - length, end)
        for i_part, (_, lengths) in enumerate(parts)
        for length, end in zip(lengths, np.cumsum(lengths, dtype=np.int64).tolist(), strict=True)
    ]
    random.Random(seed).shuffle(places)
    with path.open("wb") as file:
        for i_part, start, end in places:
            file.write(maps[i_part][start:end].tobytes())
    for part, _ in parts:
        part.unlink()
    return sum(end - start for _, start, end in places)


def _write_tokens(path: Path, documents: Iterable[str], tokenizer: Tokenizer) -> list[int]:
    """Write the tokens of documents one after the other, and return how many each has."""
    lengths = []
    with path.open("wb") as file:
        for tokens in encode_documents(documents, tokenizer):
            file.write(tokens.tobytes())
            lengths.append(len(tokens))
    return lengths


def _mapped(path: Path, n_tokens: int) -> Tokens:
    n_bytes = 2 * n_tokens
    if path.stat().st_size != n_bytes:
        message = f"token file: expected {n_bytes} bytes, found {path.stat().st_size}; remove {path.parent}"
        raise FileError(message, path=str(path))
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=np.uint16, mode="r") if n_tokens else np.empty(0, dtype=np.uint16)


def _count_bytes(documents: Iterable[str]) -> int:
    return sum(len(document.encode()) for document in documents)
