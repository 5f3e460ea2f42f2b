from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest

from llmzip.errors import ConfigError, ModelInvalidError
from llmzip.models.convert.selective import spec
from llmzip.models.convert.settings import Settings
from llmzip_training.model import ModelConfig

GOOD: dict[str, Any] = {
    "vocab_size": 300, "width": 24, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "ffn_width": 32, "context": 16,
    "attention": "selective", "ngram_tables": 3, "ngram_rows": 2,
}  # fmt: skip


def _engine_takes(values: dict[str, Any]) -> None:
    settings = {"model_type": "llmzip_selective", "bos_token_id": 0, "selection": {"cutoff": 16}, "llmzip": values}
    spec(Settings(settings))


@pytest.mark.parametrize(
    "change",
    [
        {"ngram_tables": 4, "width": 32},
        {"ngram_tables": -1},
        {"ngram_rows": 0},
        {"ngram_rows": 1},
        {"ngram_rows": 48},
        {"ngram_rows": -2},
        {"ngram_rows": 2**24},
        {"width": 28},
        {"rotary_base": 0.0},
        {"rotary_base": -1.0},
        {"rotary_base": float("inf")},
        {"norm_eps": 0.0},
        {"norm_eps": float("nan")},
        {"n_layers": 0},
        {"context": 2**24},
        {"head_width": 7},
        {"head_width": -2},
        {"n_kv_heads": 3},
    ],
    ids=lambda change: re.sub(r"\W+", "-", str(change)).strip("-"),
)
def test_shape_that_the_engine_refuses_is_refused_before_training(change: dict[str, Any]) -> None:
    """Both have the same bounds."""
    whole = asdict(ModelConfig(**GOOD))
    _engine_takes(whole)
    with pytest.raises(ConfigError, match=r"^model.*: expected .*, found"):
        ModelConfig(**GOOD | change)
    with pytest.raises(ModelInvalidError):
        _engine_takes(whole | change)


def test_greatest_tables_are_taken_by_both() -> None:
    """Three tables of 2**23 rows."""
    _engine_takes(asdict(ModelConfig(**GOOD | {"ngram_rows": 2**23})))
