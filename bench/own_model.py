"""The trainer's float model, called as `transformers` calls a model; it prunes nothing.

Of one of our own specs, with its trained weights or new ones; or of an artefact, with the numbers that the exact engine
multiplies with: int8 times scale.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llmzip.errors import ConfigError
from llmzip.exact.spec import ModelSpec
from llmzip.models.artefact import Artefact


class OwnModel:
    """A `LanguageModel` behind the call that `bench.float_model` makes.

    Args:
        spec: of the exact model.
        source: an artefact; an exported folder, a run's folder or a checkpoint; None means the weights of a new model.
    """

    def __init__(self, spec: ModelSpec, source: Path | Artefact | None) -> None:
        self._model = _dequantised(source) if isinstance(source, Artefact) else _trained(spec, source)

    def __call__(self, input_ids: Any, logits_to_keep: int, **_options: object) -> Any:
        """Logits of the last `logits_to_keep` of the tokens `[B, T]`, `[B, logits_to_keep, V]`."""
        x = self._model.embed(input_ids)
        n_tokens = input_ids.shape[1]
        for layer in self._model.layers:
            x = layer(x, self._model.cos[:n_tokens], self._model.sin[:n_tokens], None)
        return SimpleNamespace(logits=self._model.predict(x[:, n_tokens - logits_to_keep :]))


def _dequantised(artefact: Artefact) -> Any:
    from llmzip_training.frozen import load_frozen

    return load_frozen(artefact)


def _trained(spec: ModelSpec, source: Path | None) -> Any:
    import torch

    from llmzip_training.load import load_model
    from llmzip_training.model import LanguageModel

    config = _config(spec)
    torch.manual_seed(0)
    model = LanguageModel(config) if source is None else load_model(source)
    if model.config != config:
        raise ConfigError(f"float model {source}: expected {config}, found {model.config}")
    return model


def _config(spec: ModelSpec) -> Any:
    from llmzip_training.model import ModelConfig

    selection, ngrams = spec.selection, spec.ngrams
    return ModelConfig(
        vocab_size=spec.vocab_size,
        width=spec.width,
        n_layers=spec.n_layers,
        n_heads=spec.n_heads,
        n_kv_heads=spec.n_kv_heads,
        ffn_width=spec.ff_width,
        context=spec.max_positions,
        mlp=spec.mlp,
        activation="relu2" if spec.activation == "relu2" else "silu",
        attention="selective" if selection else "plain",
        protect_first=selection.protect_first if selection else True,
        mask_self=selection.mask_self if selection else False,
        ngram_tables=ngrams.tables if ngrams else 0,
        ngram_rows=ngrams.rows if ngrams else 0,
        rotary_base=spec.rotary_base,
        norm_eps=spec.norm_eps,
        head_width=spec.head_width,
    )
