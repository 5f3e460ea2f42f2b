"""Any bytes to token ids whose pieces, put together, are the same bytes.

The `tokenizers` library only proposes ids for valid UTF-8 text; each proposal is checked against the
vocabulary's table, and what does not come back is cut smaller, at last into single bytes. So a tokenizer
that normalises, drops or merges text costs ratio, never content. Decoding uses the table alone.

The library works on all threads; TOKENIZERS_PARALLELISM=false in the environment keeps it to one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.tokens.vocabulary import BYTE_TOKEN, Vocabulary, is_sentencepiece, parse_tokenizer, steps

# What `surrogateescape` makes of bytes that are not UTF-8.
_INVALID = re.compile("([\udc80-\udcff]+)")
_SPACE_MARK = "\u2581"


class ByteTokenizer:
    """Encodes bytes with a tokenizer, exactly."""

    def __init__(self, tokenizer_json: str, vocabulary: Vocabulary) -> None:
        """Take a tokenizer as `strip_tokenizer` returns it, and the table made from the published one."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._vocabulary = vocabulary
        names = map(self._tokenizer.id_to_token, vocabulary.byte_ids.tolist())
        taken = {name for name in names if name and len(name) > 1 and not BYTE_TOKEN.fullmatch(name)}
        if taken:
            self._tokenizer = Tokenizer.from_str(_without(tokenizer_json, taken))

    def encode(self, data: bytes) -> NDArray[np.int32]:
        """Ids whose pieces give `data`, shape `[T]`."""
        return self.encode_batch([data])[0]

    def encode_batch(self, batch: Sequence[bytes]) -> list[NDArray[np.int32]]:
        """`encode` of each item, on all threads of the tokenizer library."""
        runs = [_runs(data) for data in batch]
        texts = [run for item in runs for run in item if not _INVALID.match(run)]
        proposals = iter(self._propose(texts))
        return [np.concatenate([np.empty(0, np.int32), *self._exact(item, proposals)]) for item in runs]

    def decode(self, ids: NDArray[np.int32]) -> bytes:
        """The bytes of `ids`; an id out of range or without bytes is a `ValueError`."""
        return self._vocabulary.decode(ids)

    def _exact(self, runs: Sequence[str], proposals: Iterator[NDArray[np.int32]]) -> Iterator[NDArray[np.int32]]:
        for run in runs:
            if _INVALID.match(run):
                yield self._as_bytes(run)
            else:
                yield from self._checked(run, next(proposals))

    def _checked(self, text: str, ids: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """`ids` if they give `text` back, else the ids of its halves; those of single characters are bytes."""
        if self._gives(ids, text):
            return [ids]
        if len(text) == 1:
            return [self._as_bytes(text)]
        parts = []
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            parts += self._checked(half, self._propose([half])[0])
        return parts

    def _gives(self, ids: NDArray[np.int32], text: str) -> bool:
        table = self._vocabulary
        in_table = ids.size == 0 or int(ids.max()) < len(table)
        return bool(in_table and table.codable[ids].all()) and table.decode(ids) == text.encode()

    def _propose(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _as_bytes(self, run: str) -> NDArray[np.int32]:
        data = run.encode("utf-8", "surrogateescape")
        return self._vocabulary.byte_ids[np.frombuffer(data, dtype=np.uint8)]


def _runs(data: bytes) -> list[str]:
    """Valid text and, as surrogates, the bytes between that are not UTF-8; alternating, none empty."""
    return [run for run in _INVALID.split(data.decode("utf-8", "surrogateescape")) if run]


def strip_tokenizer(tokenizer_json: str) -> str:
    """What encoding needs of a `tokenizers` file, as canonical JSON, so that its hash is a fact of the source.

    Special tokens go, so that their names in a text are plain text; so do a prefixed space, Unicode
    normalisation, templates, truncation, padding and dropout. Stripping twice changes nothing.
    """
    document = parse_tokenizer(tokenizer_json)
    sentencepiece = is_sentencepiece(document)
    model = document["model"] | {"dropout": None}
    added = [_plain(token) for token in document.get("added_tokens") or [] if not token["special"]]
    # The library numbers an added token by itself unless the vocabulary has it.
    model["vocab"] = {token["content"]: token["id"] for token in added} | model["vocab"]
    normalizer = [step for step in steps(document.get("normalizer")) if sentencepiece and _marks_spaces(step)]
    splitter = [_unprefixed(step) for step in steps(document.get("pre_tokenizer"))]
    stripped = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": _sequence(normalizer, "normalizers"),
        "pre_tokenizer": _sequence(splitter, "pretokenizers"),
        "post_processor": None,
        "decoder": {"type": "ByteFallback"} if sentencepiece else None,
        "model": model,
    }
    return json.dumps(stripped, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _without(tokenizer_json: str, taken: Set[str]) -> str:
    """The tokenizer without tokens that the table has given to bytes, so that it never proposes them."""
    document = parse_tokenizer(tokenizer_json)
    model = document["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in taken}
    merges = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    model["merges"] = [merge for merge in merges if taken.isdisjoint((*merge, "".join(merge)))]
    return json.dumps(document, ensure_ascii=False)


def _plain(token: dict[str, Any]) -> dict[str, Any]:
    return token | {"lstrip": False, "rstrip": False, "single_word": False}


def _marks_spaces(step: dict[str, Any]) -> bool:
    return bool(step["type"] == "Replace" and step["content"] == _SPACE_MARK)


def _unprefixed(step: dict[str, Any]) -> dict[str, Any]:
    if step["type"] == "Metaspace":
        return {
            "type": "Metaspace",
            "replacement": _SPACE_MARK,
            "prepend_scheme": "never",
            "split": step.get("split", True),
        }
    if "add_prefix_space" in step:
        return step | {"add_prefix_space": False}
    return step


def _sequence(items: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    return {"type": "Sequence", key: items} if items else None
