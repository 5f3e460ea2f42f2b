from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmzip.errors import ConfigError, FileError
from llmzip_training.corpus import END_OF_DOCUMENT, checked_tokenizer, load_corpus, prepare_corpus
from llmzip_training.tokenizer import load_tokenizer, train_tokenizer

WriteShard = Callable[[str, Iterable[str]], Path]
DOCUMENTS = [f"Document number {i}: <|endoftext|> is plain text, näïve or not.\n" for i in range(60)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A small tokenizer's file."""
    path = tmp_path / "tokenizer.json"
    train_tokenizer(iter(DOCUMENTS), 300).save(str(path))
    return path


@pytest.fixture
def made(data: Path, write_shard: WriteShard) -> Path:
    """A folder with one shard of 60 documents."""
    write_shard("made", DOCUMENTS)
    return data


def _decoded(tokens: Iterable[int], tokenizer: Path) -> list[str]:
    stream = np.array(tokens, dtype=np.uint16)
    pieces = np.split(stream, np.flatnonzero(stream == END_OF_DOCUMENT) + 1)
    assert len(pieces.pop()) == 0
    return [load_tokenizer(tokenizer).decode(piece[:-1].tolist()) for piece in pieces]


def test_token_files_hold_every_document_once(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    """Decoded at its boundaries, the stream is the training documents in another order; held-out text is apart."""
    corpus = load_corpus(prepare_corpus(made, tokenizer, tmp_path / "cache", 1, {}))
    documents = _decoded(corpus.tokens, tokenizer)
    assert sorted(documents) == sorted(DOCUMENTS[:59])
    assert documents != DOCUMENTS[:59]
    (held_out,) = corpus.held_out
    assert _decoded(held_out.tokens, tokenizer) == [DOCUMENTS[59]]
    assert held_out.n_bytes == len(DOCUMENTS[59].encode())
    n_text_tokens = len(corpus.tokens) - 59
    assert corpus.bytes_per_token == sum(len(text.encode()) for text in DOCUMENTS[:59]) / n_text_tokens


def test_documents_of_all_shards_are_mixed_and_shares_are_their_first(
    made: Path, write_shard: WriteShard, tokenizer: Path, tmp_path: Path
) -> None:
    """Half of a shard is the first half of its training documents; no shard lies in one piece."""
    write_shard("other", [text.upper() for text in DOCUMENTS])
    corpus = load_corpus(prepare_corpus(made, tokenizer, tmp_path / "cache", 1, {"made": 0.5}))
    documents = _decoded(corpus.tokens, tokenizer)
    # 59 * 0.5 is rounded to an even number.
    assert sorted(documents) == sorted(DOCUMENTS[:30] + [text.upper() for text in DOCUMENTS[:59]])
    changes = sum(a.isupper() != b.isupper() for a, b in pairwise(documents))
    assert changes > 10


def test_equal_inputs_share_a_folder_and_a_changed_one_makes_another(
    made: Path, write_shard: WriteShard, tokenizer: Path, tmp_path: Path
) -> None:
    """Seed, share, text and tokenizer all count; nothing unfinished is left behind."""
    cache = tmp_path / "cache"
    first = prepare_corpus(made, tokenizer, cache, 1, {})
    written = (first / "tokens.bin").stat().st_mtime_ns
    assert prepare_corpus(made, tokenizer, cache, 1, {}) == first
    assert (first / "tokens.bin").stat().st_mtime_ns == written
    folders = [
        first,
        prepare_corpus(made, tokenizer, cache, 2, {}),
        prepare_corpus(made, tokenizer, cache, 1, {"made": 0.5}),
    ]
    write_shard("made", [*DOCUMENTS[:-1], "Another end.\n"])
    folders.append(prepare_corpus(made, tokenizer, cache, 1, {}))
    train_tokenizer(iter(DOCUMENTS), 280).save(str(tokenizer))
    folders.append(prepare_corpus(made, tokenizer, cache, 1, {}))
    assert len(set(folders)) == len(folders)
    assert set(cache.iterdir()) == set(folders)


def test_held_out_tokens_depend_on_neither_seed_nor_shares(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    """Runs that train on different parts are measured on the same text."""
    runs = [(1, {}), (2, {"made": 0.25})]
    tokens = [load_corpus(prepare_corpus(made, tokenizer, tmp_path, *run)).held_out[0].tokens for run in runs]
    assert tokens[0].tolist() == tokens[1].tolist()


def test_share_of_an_unknown_shard_is_refused(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A misspelt shard never counts in full in silence."""
    with pytest.raises(ConfigError, match=r"expected shards of .*\(made\), found maid"):
        prepare_corpus(made, tokenizer, tmp_path, 1, {"maid": 0.5})


def test_damaged_shard_leaves_no_token_files(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    """What was begun before the damage was met is removed."""
    (made / "zz.txt.zst").write_bytes(b"no zstd")
    with pytest.raises(FileError, match=r"zz\.txt\.zst"):
        prepare_corpus(made, tokenizer, tmp_path / "cache", 1, {})
    assert list((tmp_path / "cache").iterdir()) == []


def test_token_file_of_another_length_is_refused(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A cut token file is named, with what to do."""
    folder = prepare_corpus(made, tokenizer, tmp_path / "cache", 1, {})
    content = (folder / "tokens.bin").read_bytes()
    (folder / "tokens.bin").write_bytes(content[:-2])
    with pytest.raises(FileError, match=f"expected {len(content)} bytes, found {len(content) - 2}; remove"):
        load_corpus(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"n_tokens": 1}', b'{"n_tokens": "1"}'])
def test_damaged_facts_about_token_files_are_refused(
    made: Path, tokenizer: Path, tmp_path: Path, content: bytes
) -> None:
    """By name, with what to do."""
    folder = prepare_corpus(made, tokenizer, tmp_path / "cache", 1, {})
    (folder / "corpus.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{folder}/corpus\.json: corpus.*: expected .*; remove {folder}$"):
        load_corpus(folder)


def test_tokenizer_of_too_many_tokens_is_refused(tmp_path: Path) -> None:
    """65,536 tokens fit into 16 bits, one more does not."""
    from tokenizers import Tokenizer, models

    for n_tokens, fits in ((65_536, True), (65_537, False)):
        vocabulary = {"<|endoftext|>": 0} | {f"t{i}": i for i in range(1, n_tokens)}
        path = tmp_path / f"{n_tokens}.json"
        Tokenizer(models.BPE(vocab=vocabulary, merges=[])).save(str(path))
        if fits:
            checked_tokenizer(path)
        else:
            with pytest.raises(ConfigError, match="at most 65536 tokens, found 65537"):
                checked_tokenizer(path)


def test_tokenizer_with_an_id_above_its_size_is_refused(tmp_path: Path) -> None:
    """Few tokens with great ids would not fit into 16 bits, nor into the model's embedding."""
    from tokenizers import Tokenizer, models

    path = tmp_path / "t.json"
    Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, "a": 70_000}, merges=[])).save(str(path))
    with pytest.raises(ConfigError, match="at most 65536 tokens, found 70001"):
        checked_tokenizer(path)
    Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, "a": 300}, merges=[])).save(str(path))
    checked_tokenizer(path, 301)
    with pytest.raises(ConfigError, match="at most 300 tokens, found 301"):
        checked_tokenizer(path, 300)


def test_tokenizer_without_a_boundary_is_refused(tmp_path: Path) -> None:
    """Token 0 ends documents; another meaning would end them everywhere."""
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])).save(str(tmp_path / "t.json"))
    with pytest.raises(ConfigError, match="as token 0, found 'a'"):
        checked_tokenizer(tmp_path / "t.json")
