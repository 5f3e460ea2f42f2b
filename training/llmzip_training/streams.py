"""Reads texts as tokens of an artefact, for what is trained beside a model: a stream to cut windows from, or pieces.

Documents are bytes of any kind, cut by the encoder's own tokenizer; BOS stands behind each, as the boundary that no
archive codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ConfigError
from llmzip.models.artefact import Artefact
from llmzip.tokens.tokenizer import ByteTokenizer
from llmzip_training.shards import read_shards
from llmzip_training.variants import with_variants


@dataclass(frozen=True)
class TokenStream:
    """Documents as tokens.

    Attributes:
        tokens: int32 `[N]`, BOS behind each document.
        bos_id: that token.
        n_bytes: of the documents.
    """

    tokens: NDArray[np.int32]
    bos_id: int
    n_bytes: int

    @property
    def n_tokens(self) -> int:
        """Tokens of text."""
        return int((self.tokens != self.bos_id).sum())

    @property
    def digest(self) -> str:
        """SHA-256 of the tokens, in hex."""
        return hashlib.sha256(self.tokens.tobytes()).hexdigest()

    def windows(self, context: int, n_windows: int = 0) -> NDArray[np.int64]:
        """The stream in windows `[n, context]`, the last one filled with BOS; so many at equal distances, 0: all."""
        n_all = max(1, -(-len(self.tokens) // context))
        padded = np.full(n_all * context, self.bos_id, dtype=np.int64)
        padded[: len(self.tokens)] = self.tokens
        return _spread(padded.reshape(n_all, context), n_windows)

    def pieces(self, context: int, n_pieces: int = 0) -> NDArray[np.int64]:
        """The documents in pieces `[n, context]`, none across a boundary, each with an eighth of its tokens at least.

        Of all of them so many at equal distances, 0: all.
        """
        documents = np.split(self.tokens, np.flatnonzero(self.tokens == self.bos_id) + 1)
        texts = [document[document != self.bos_id] for document in documents]
        parts = [text[first : first + context] for text in texts for first in range(0, len(text), context)]
        parts = [part for part in parts if len(part) * 8 >= context]
        rows = np.full((len(parts), context), self.bos_id, dtype=np.int64)
        for row, part in zip(rows, parts, strict=True):
            row[: len(part)] = part
        return _spread(rows, n_pieces)


def encode_stream(documents: Iterable[bytes], artefact: Artefact) -> TokenStream:
    """Tokenise documents.

    Raises:
        ConfigError: they are empty.
    """
    texts = [document for document in documents if document]
    if not texts:
        raise ConfigError("text: expected at least one byte, found none")
    tokenizer = ByteTokenizer(artefact.tokenizer_json, artefact.vocabulary)
    end = np.array([artefact.spec.bos_id], dtype=np.int32)
    tokens = np.concatenate([part for ids in tokenizer.encode_batch(texts) for part in (ids, end)])
    return TokenStream(tokens, artefact.spec.bos_id, sum(map(len, texts)))


def shard_streams(
    data: Path, artefact: Artefact, n_bytes: int, *, variants: int = 0
) -> tuple[TokenStream, TokenStream]:
    """Training and held-out text of the shards of a folder; of each shard about an equal part of `n_bytes`.

    Args:
        data: the folder.
        artefact: of the model.
        n_bytes: of training text.
        variants: change one document in so many, see `with_variants`; 0 for none.

    Raises:
        FileMissingError: there is no shard.
        FileError: a shard is damaged.
    """
    shards = [(shard.train, shard.held_out) for shard in read_shards(data)]
    parts = [
        (with_variants(_first(train, n_bytes // len(shards)), variants), with_variants(held_out, variants))
        for train, held_out in shards
    ]
    train, held_out = zip(*parts, strict=True)
    return encode_stream(_bytes_of(train), artefact), encode_stream(_bytes_of(held_out), artefact)


def _bytes_of(shards: Iterable[Iterable[str]]) -> Iterator[bytes]:
    return (document.encode() for documents in shards for document in documents)


def file_stream(paths: Sequence[Path], artefact: Artefact) -> TokenStream:
    """Files as documents, whatever their bytes."""
    return encode_stream([path.read_bytes() for path in paths], artefact)


def _first(documents: Sequence[str], n_bytes: int) -> list[str]:
    taken: list[str] = []
    for document in documents:
        if n_bytes <= 0:
            break
        taken.append(document)
        n_bytes -= len(document.encode())
    return taken


def _spread(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return rows if not 0 < n < len(rows) else rows[np.arange(n) * len(rows) // n]
