"""Trains the byte-level BPE tokenizer of our own models.

Every byte is in the alphabet, so every text has tokens. There is no normaliser, no prefix space and
one special token, `<|endoftext|>` as id 0. Digits stand alone: numbers in wiki markup and logs
repeat in their parts, rarely as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmzip.errors import ConfigError
from llmzip_training.files import read_json
from llmzip_training.shards import read_shards

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
SAMPLE_SHARE = 0.15
# The 256 bytes and `<|endoftext|>`; and what 16 bits can tell apart.
MIN_VOCAB_SIZE = 257
MAX_VOCAB_SIZE = 2**16


def expect_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary without all bytes, and one that does not fit into 16 bits."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise ConfigError(f"vocabulary: expected {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE} tokens, found {vocab_size}")


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens, the 256 bytes and `<|endoftext|>` included; fewer where the texts have no more.

    Raises:
        ConfigError: `vocab_size` is below 257 or above 65,536.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    expect_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def sample_texts(data: Path, shares: Mapping[str, float], sample_share: float = SAMPLE_SHARE) -> Iterator[str]:
    """Yield the first documents of every shard in `data`, up to `sample_share` of its training characters.

    A shard that `shares` names gives only so much of that.

    Documents lie in random order within a shard, so a prefix is a fair sample; held-out documents
    never take part.
    """
    for shard in read_shards(data):
        left = sample_share * shares.get(shard.name, 1.0) * sum(map(len, shard.train))
        for document in shard.train:
            if left <= 0:
                break
            left -= len(document)
            yield document


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer such that `<|endoftext|>` spelled in a text is tokenised as plain text.

    Raises:
        ConfigError: the file is no tokenizer.
    """
    from tokenizers import Tokenizer

    read_json(path, "tokenizer")
    text = path.read_text(encoding="utf-8")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises this very class for whatever it cannot read
        if type(error) is not Exception:
            raise
        raise ConfigError(f"{path}: tokenizer: expected a tokenizer.json, found something else: {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
