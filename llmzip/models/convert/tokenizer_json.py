"""Tokenizers of GGUF files, which store tables only, as the JSON that the `tokenizers` library reads.

Two kinds occur: `gpt2` (byte-level BPE with ranked merges and a splitting rule known by name) and `llama`
(SentencePiece BPE: pieces with scores, from which the merges follow).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmzip.models.convert.gguf_file import GgufFile
from llmzip.models.convert.settings import unsupported

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace("{1,3}", "")


def tokenizer_json(file: GgufFile) -> str:
    """The `tokenizers` file that stands for the tables in `file`."""
    kind = file.need("tokenizer.ggml.model")
    tokens = list(file.need("tokenizer.ggml.tokens"))
    types = list(file.metadata("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))
    if kind == "gpt2":
        merges = [tuple(merge.split(" ", 1)) for merge in file.need("tokenizer.ggml.merges")]
        return byte_level_json(tokens, types, merges, file.metadata("tokenizer.ggml.pre", "default"))
    if kind == "llama":
        return sentencepiece_json(tokens, types, list(file.need("tokenizer.ggml.scores")))
    raise unsupported("GGUF", "tokenizer.ggml.model", "gpt2 or llama", kind)


def byte_level_json(tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, ...]], split: str) -> str:
    """A byte-level BPE; `split` is llama.cpp's name of the rule that cuts text into words."""
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens) if types[i] == NORMAL},
        "merges": [list(merge) for merge in merges],
        "ignore_merges": split == "llama-bpe",
    }
    return _document(tokens, types, model, normalizer=None, pre_tokenizer=_splitter(split), decoder=_byte_level(False))


def sentencepiece_json(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> str:
    """A SentencePiece BPE: any two pieces that make a third may merge, the best score first."""
    vocab = {token: i for i, token in enumerate(tokens) if types[i] in (NORMAL, USER_DEFINED, BYTE)}
    mergeable = {token: i for token, i in vocab.items() if types[i] != BYTE}
    ranked = []
    for token, i in mergeable.items():
        for cut in range(1, len(token)):
            if token[:cut] in mergeable and token[cut:] in mergeable:
                ranked.append((-scores[i], i, cut))
    model = {
        "type": "BPE",
        "vocab": vocab,
        "merges": [[tokens[i][:cut], tokens[i][cut:]] for _, i, cut in sorted(ranked)],
        "byte_fallback": True,
    }
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return _document(tokens, types, model, normalizer=normalizer, pre_tokenizer=None, decoder={"type": "ByteFallback"})


def _document(tokens: Sequence[str], types: Sequence[int], model: dict[str, Any], **parts: Any) -> str:
    added = [
        _added_token(i, token, special=types[i] != USER_DEFINED)
        for i, token in enumerate(tokens)
        if types[i] in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    return json.dumps({"version": "1.0", "added_tokens": added, **parts, "model": model}, ensure_ascii=False)


def _added_token(i: int, content: str, *, special: bool) -> dict[str, Any]:
    # A user's token is looked for in the normalised text, where a space is already U+2581.
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    return {"id": i, "content": content, **flags}


def _splitter(name: str) -> dict[str, Any]:
    if name in ("default", "gpt-2", "olmo", "mpt"):
        return _byte_level(True)
    if name == "smollm":
        return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)]}
    patterns = {"llama-bpe": _LLAMA3_SPLIT, "qwen2": _QWEN2_SPLIT}
    if name not in patterns:
        raise unsupported("GGUF", "tokenizer.ggml.pre", "default, gpt-2, olmo, mpt, smollm, llama-bpe or qwen2", name)
    split = {"type": "Split", "pattern": {"Regex": patterns[name]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
