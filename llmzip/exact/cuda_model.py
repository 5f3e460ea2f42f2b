"""A transformer from its tokens to its last norm on a GPU.

The operations are those of `llmzip_kernels` in the order of `Transformer`, which remains the definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from llmzip.exact import tables
from llmzip.exact.backend import Floats
from llmzip.exact.cuda_batch import Batch, Rows, to_batch
from llmzip.exact.cuda_cache import CudaCache, DeviceArray, heads_of
from llmzip.exact.cuda_steps import Capture, Steps
from llmzip.exact.matrix import QuantisedMatrix
from llmzip.exact.spec import ModelSpec
from llmzip_kernels import activation, attention, embedding, heads, linear, norm, quantise, runs, selection, shifts
from llmzip_kernels.heads import HeadNorms, Rotation
from llmzip_kernels.launching import device, to_device
from llmzip_kernels.linear import DeviceMatrix


def as_floats(array: NDArray[Any]) -> Floats:
    """The array as float32."""
    return np.asarray(array, np.float32)


class _Norm(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor | None


class _Products:
    """A norm, and the matrices that take what it gives; neighbours of one limit are one matrix."""

    def __init__(self, norm: _Norm, eps: float, matrices: Sequence[DeviceMatrix]) -> None:
        self._norm, self._eps = norm, eps
        self._matrices: list[DeviceMatrix] = []
        run: list[DeviceMatrix] = []
        for i, matrix in enumerate(matrices):
            run.append(matrix)
            if i + 1 == len(matrices) or matrices[i + 1].limit != matrix.limit:
                self._matrices.append(linear.stack(run))
                run = []
        self._width = sum(len(matrix.q) for matrix in self._matrices)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """All products of the rows side by side, in the order of the matrices."""
        y = torch.empty((len(x), self._width), dtype=torch.float32, device=x.device)
        limits = {matrix.limit for matrix in self._matrices}
        rows = {limit: norm.norm_rows(x, *self._norm, self._eps, limit) for limit in limits}
        end = 0
        for matrix in self._matrices:
            begin, end = end, end + len(matrix.q)
            linear.linear(rows[matrix.limit], matrix, y=y[:, begin:end])
        return y


class _Layer(NamedTuple):
    attend: _Products
    head_norms: HeadNorms | None
    rotation: Rotation | None
    window: int
    o: DeviceMatrix
    post_attention: _Norm | None
    expand: _Products
    down: DeviceMatrix
    post_mlp: _Norm | None


class CudaModel:
    """One model; see `Backend.fuse` for the arguments.

    Args:
        spec: the transformer.
        matrices: by name.
        vectors: by name.
        rotation: cosines and sines of all positions in global layers, or None.
        embedding: of the tokens.
        ngrams: integers and scales of all n-gram tables, or None.
        capture: how steps become something to repeat; None for steps that run like everything else.
    """

    def __init__(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, DeviceMatrix],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        embedding: QuantisedMatrix,
        ngrams: tuple[torch.Tensor, torch.Tensor] | None,
        capture: Capture | None,
    ) -> None:
        self._spec, self._heads, self._ngrams = spec, heads_of(spec), ngrams
        self._eps = float(np.float32(spec.norm_eps))
        self._scale = float(np.float32(spec.attention_scale))
        self._factor = float(np.float32(spec.embedding_scale))
        tied = matrices.get("embed")
        self._embedding = (tied.q, tied.scale) if tied else (to_device(embedding.q), to_device(embedding.scale))
        self._vectors = {name: to_device(as_floats(vector)) for name, vector in vectors.items()}
        self._rotations = {False: rotation and Rotation(*map(to_device, rotation))}
        if rotation and spec.local_layers:
            local = tables.spec_rotary_tables(spec, True, len(rotation[0]))
            self._rotations[True] = Rotation(*map(to_device, local))
        self._layers = [self._layer(layer, matrices) for layer in range(spec.n_layers)]
        self._no_prefix = torch.zeros((1, spec.width), dtype=torch.float32, device=device())
        rules = spec.selection
        self._rules = rules and selection.Rules(rules.cutoff, rules.protect_first, rules.mask_self)
        self._steps = Steps(capture, self._run, selective=rules is not None) if capture else None

    def _layer(self, layer: int, matrices: Mapping[str, DeviceMatrix]) -> _Layer:
        spec, prefix = self._spec, f"layers.{layer}."
        local = spec.is_local(layer)
        parts = ["up"] if spec.mlp == "plain" else ["gate", "up"]
        head_norms = None
        if spec.qk_norm:
            head_norms = HeadNorms(self._vectors[prefix + "q_norm"], self._vectors[prefix + "k_norm"], self._eps)
        return _Layer(
            self._products(prefix, "attention_norm", "qkv", matrices),
            head_norms,
            self._rotations[local],
            spec.local_window if local else 0,
            matrices[prefix + "o"],
            self._norm(prefix + "post_attention_norm") if spec.sandwich_norms else None,
            self._products(prefix, "mlp_norm", parts, matrices),
            matrices[prefix + "down"],
            self._norm(prefix + "post_mlp_norm") if spec.sandwich_norms else None,
        )

    def _products(
        self, prefix: str, name: str, parts: Sequence[str], matrices: Mapping[str, DeviceMatrix]
    ) -> _Products:
        return _Products(self._norm(prefix + name), self._eps, [matrices[prefix + part] for part in parts])

    def _norm(self, name: str) -> _Norm:
        return _Norm(self._vectors[name], self._vectors[name + ".bias"] if self._spec.norm == "layer" else None)

    def __call__(self, cache: CudaCache, rows: Rows, prefix: Floats) -> DeviceArray:
        """Rows `[R, D]` after the last norm."""
        given = bool((rows.tokens >= self._spec.vocab_size).any())
        if self._steps and rows.step and not given:
            return DeviceArray(self._steps(cache, rows))
        batch = to_batch(cache, rows, selective=self._rules is not None)
        return DeviceArray(self._run(cache, batch, to_device(as_floats(prefix)) if given else None))

    def _run(self, cache: CudaCache, batch: Batch, prefix: torch.Tensor | None = None) -> torch.Tensor:
        prefix = self._no_prefix if prefix is None else prefix
        x = self._embed(cache, batch, prefix)
        for i, layer in enumerate(self._layers):
            x = self._shifted(cache, batch, i, x)
            between = self._attend(cache, batch, i, x)
            mlp_input = x if self._spec.parallel_residual else between
            x = self._added(self._mlp(layer, mlp_input), layer.down, between, layer.post_mlp)
        x = self._shifted(cache, batch, len(self._layers), x)
        return norm.norm(x, *self._norm("final_norm"), self._eps)

    def _embed(self, cache: CudaCache, batch: Batch, prefix: torch.Tensor) -> torch.Tensor:
        spec, learned = self._spec, self._vectors.get("positions")
        n_tokens = spec.vocab_size
        x = embedding.embed(batch.tokens, batch.positions, *self._embedding, n_tokens, self._factor, prefix, learned)
        if self._ngrams is None:
            return x
        where = (batch.lanes, batch.positions, batch.firsts)
        found = runs.find_runs(batch.tokens, *where, cache.kept, n_tokens, spec.bos_id, len(self._ngrams[0]) + 1)
        return runs.embed_runs(x, *self._ngrams, found)

    def _shifted(self, cache: CudaCache, batch: Batch, layer: int, x: torch.Tensor) -> torch.Tensor:
        if not batch.shifted or cache.steering is None:
            return x
        return shifts.shift(x, cache.steering, batch.lanes, batch.steered, layer)

    def _attend(self, cache: CudaCache, batch: Batch, i: int, x: torch.Tensor) -> torch.Tensor:
        """The residual stream after attention."""
        layer, store = self._layers[i], cache.stores[i]
        qkv = layer.attend(x)
        prepare = (qkv, self._heads, layer.head_norms, layer.rotation, batch.positions)
        if self._rules:
            new = heads.new_rows_store(len(x), self._heads, x.device)
            q, q_scale = heads.quantise_heads(*prepare, new, batch.own, batch.zeros)
            y = selection.selective_attention(
                q, q_scale, batch.tiles, new, store, cache.slots[i], self._heads, self._scale, self._rules
            )
        else:
            q, q_scale = heads.quantise_heads(*prepare, store, batch.lanes, batch.positions)
            y = attention.attention(
                q, q_scale, batch.tiles, store, self._heads, self._scale, layer.window, step=batch.step
            )
        return self._added(quantise.quantise_rows(y, layer.o.limit), layer.o, x, layer.post_attention)

    def _mlp(self, layer: _Layer, x: torch.Tensor) -> quantise.LimbRows:
        y, width = layer.expand(x), self._spec.ff_width
        up = y[:, width:] if self._spec.mlp == "gated" else None
        return activation.activate_rows(self._spec.activation, y[:, :width], up, layer.down.limit)

    def _added(
        self, rows: quantise.LimbRows, matrix: DeviceMatrix, residual: torch.Tensor, after: _Norm | None
    ) -> torch.Tensor:
        if after is None:
            return linear.linear(rows, matrix, residual)
        return norm.norm(linear.linear(rows, matrix), *after, self._eps, residual)
