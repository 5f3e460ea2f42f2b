# ruff: noqa: TID253
"""Held-out text as windows of tokens, and what a model loses on it; imports torch, loaded lazily as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from llmzip.errors import ConfigError
from llmzip_training.corpus import END_OF_DOCUMENT, encode_documents
from llmzip_training.evaluate import total_nats
from llmzip_training.shards import read_shards
from llmzip_training.windows import consecutive_windows


@dataclass(frozen=True)
class HeldOutWindows:
    """Windows of held-out tokens.

    Attributes:
        targets: `[N, T]`, int64.
        n_tokens: of text; boundaries and filling are left out.
        n_bytes: of that text; for a part of a text in proportion to its tokens.
    """

    targets: Tensor
    n_tokens: int
    n_bytes: float

    def bits_per_byte(self, nats: float) -> float:
        """Bits per byte of the text, for a loss in nats a token."""
        return nats / math.log(2) * self.n_tokens / max(self.n_bytes, 1.0)


def held_out_documents(data: Path) -> list[str]:
    """The held-out documents of all shards of a folder."""
    return [document for shard in read_shards(data) for document in shard.held_out]


def cut_windows(documents: Iterable[str], tokenizer: Tokenizer, context: int, n_windows: int = 0) -> HeldOutWindows:
    """Tokenise documents, one after the other, and cut them into windows of `context`.

    Args:
        documents: texts.
        tokenizer: of the model.
        context: tokens in a window.
        n_windows: keep so many, at equal distances; 0 or more than there are: all.

    Raises:
        ConfigError: there is no document.
    """
    documents = list(documents)
    if not documents:
        raise ConfigError("held-out text: expected at least one document, found none")
    tokens = torch.from_numpy(np.concatenate(list(encode_documents(documents, tokenizer))).astype(np.int64))
    targets = consecutive_windows(tokens, context)
    n_bytes = sum(len(document.encode()) for document in documents)
    n_all = int((targets != END_OF_DOCUMENT).sum())
    if 0 < n_windows < len(targets):
        targets = targets[torch.arange(n_windows) * len(targets) // n_windows]
    n_tokens = int((targets != END_OF_DOCUMENT).sum())
    return HeldOutWindows(targets, n_tokens, n_bytes * n_tokens / max(n_all, 1))


def nats_per_token(model: nn.Module, windows: HeldOutWindows) -> float:
    """Mean cross-entropy of a model that takes ids `[B, T]`."""
    return total_nats(model, windows.targets) / max(windows.n_tokens, 1)
