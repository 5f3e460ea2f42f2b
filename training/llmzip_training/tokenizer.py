"""Trains the byte-level BPE tokenizer of our own models.

Every byte is in the alphabet, so every text has tokens. There is no normaliser, no prefix space and
one special token, `<|endoftext|>` as id 0. Digits stand alone: numbers in wiki markup and logs
repeat in their parts, rarely as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmzip_training.corpus import read_shards

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
SAMPLE_SHARE = 0.15


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens, the 256 bytes and `<|endoftext|>` included."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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


def sample_texts(data: Path, share: float = SAMPLE_SHARE) -> Iterator[str]:
    """Yield the first documents of every shard in `data`, up to `share` of its training characters.

    Documents lie in random order within a shard, so a prefix is a fair sample; held-out documents
    never take part.
    """
    for shard in read_shards(data):
        left = share * sum(map(len, shard.train))
        for document in shard.train:
            if left <= 0:
                break
            left -= len(document)
            yield document


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer such that `<|endoftext|>` spelled in a text is tokenised as plain text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer
