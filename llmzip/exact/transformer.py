"""One decoder-only transformer, for every family that a `ModelSpec` can describe.

Notable:
- rows of any lanes at any positions in one call: a prefill, a step and a mixture are the same code
- pre-norms, optional norms after attention and MLP (Gemma), or one parallel block (GPT-NeoX)
- grouped heads, norms of queries and keys, rotation of a part of a head, local layers
- selective attention with a pruned cache, embeddings of runs of tokens
- steered lanes: a prefix of rows that are no tokens, and shifts of the residual stream
- a row's result depends on the tokens of its own lane up to its own position, on what steers it, and on nothing else
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import ModelInvalidError
from llmzip.exact import tables
from llmzip.exact.backend import Backend, Cache, Floats, Segments
from llmzip.exact.matrix import QuantisedMatrix, Rows
from llmzip.exact.spec import MAX_WINDOW, ModelSpec


class Segment(NamedTuple):
    """Neighbouring tokens of one lane, the first at `position`."""

    lane: int
    position: int
    tokens: NDArray[np.int32]


def in_blocks(segments: Sequence[Segment], n_rows: int) -> Iterator[list[Segment]]:
    """Segments of different lanes in blocks of at most `n_rows` tokens, cut where one is full."""
    block: list[Segment] = []
    left = n_rows
    for lane, position, tokens in segments:
        first = 0
        while first < len(tokens):
            block.append(Segment(lane, position + first, tokens[first : first + left]))
            first += len(block[-1].tokens)
            left -= len(block[-1].tokens)
            if left == 0:
                yield block
                block, left = [], n_rows
    if block:
        yield block


class Parameters(NamedTuple):
    """A model's quantised matrices and its float32 vectors, by the names in `llmzip.exact.spec`."""

    matrices: Mapping[str, QuantisedMatrix]
    vectors: Mapping[str, Floats]


class Transformer:
    """A model on a backend. Caches hold all state, so threads may share a `Transformer`.

    Attributes:
        spec: its shape.
        backend: what computes.
        fused: the whole model in one call, where the backend has that; None for operation by operation.
    """

    def __init__(self, spec: ModelSpec, parameters: Parameters, backend: Backend) -> None:
        self.spec = spec
        self.backend = backend
        self._vectors = parameters.vectors
        self._embedding = parameters.matrices["embed"]
        self._matrices = {
            name: backend.load(matrix)
            for name, matrix in parameters.matrices.items()
            if (name != "embed" or spec.tied_head) and not name.startswith("ngram")
        }
        self._head = self._matrices["embed" if spec.tied_head else "head"]
        self._ngrams = None
        if spec.ngrams:
            names = [f"ngram{i + 2}" for i in range(spec.ngrams.tables)]
            self._ngrams = backend.load_tables([parameters.matrices[name] for name in names])
            self._reach = np.arange(spec.ngrams.tables + 1, dtype=np.int32)
        self._rotations = {
            local: tables.spec_rotary_tables(spec, local, min(spec.max_positions, MAX_WINDOW))
            for local in (False, True)
            if spec.rotary_width
        }
        rotation = self._rotations.get(False)
        self._no_prefix = np.zeros((0, spec.width), dtype=np.float32)
        self.fused = backend.fuse(spec, self._matrices, self._vectors, rotation, self._embedding, self._ngrams)

    def new_cache(self, n_lanes: int, capacity: int) -> Cache:
        """An empty cache for `n_lanes` lanes of at most `capacity` positions."""
        limit = min(self.spec.max_positions, MAX_WINDOW)
        if capacity > limit:
            raise ModelInvalidError(f"window: expected at most {limit} tokens for this model, found {capacity}")
        return self.backend.new_cache(self.spec, n_lanes, capacity)

    def hidden(self, cache: Cache, segments: Sequence[Segment], prefix: Floats | None = None) -> Floats:
        """Run the tokens of all segments through the layers, extending their lanes' caches.

        Args:
            cache: from `new_cache`; each lane already holds the positions before its segment.
            segments: at most one a lane, at least one token each.
            prefix: float32 `[P, D]`, the rows that ids from V on stand for; None for none.

        Returns:
            float32 `[R, D]` after the final norm, rows in the order of the segments.

        Raises:
            ValueError: a token beyond the vocabulary; a segment beyond its lane's capacity; or one of a selective
                model that neither begins its lane nor continues it, for what it has forgotten cannot be taken back.
        """
        return self._run(cache, *_lay_out(segments), self._no_prefix if prefix is None else prefix)

    def step(
        self,
        cache: Cache,
        lanes: NDArray[np.int32],
        positions: NDArray[np.int32],
        tokens: NDArray[np.int32],
        prefix: Floats | None = None,
    ) -> Floats:
        """`hidden` of one token a lane; all int32 `[R]`."""
        index = np.empty((len(lanes), 4), dtype=np.int32)
        index[:, 0], index[:, 1], index[:, 2], index[:, 3] = lanes, np.arange(len(lanes)), 1, positions
        return self._run(cache, index, tokens, positions, self._no_prefix if prefix is None else prefix)

    def _run(
        self,
        cache: Cache,
        index: Segments,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        prefix: Floats,
    ) -> Floats:
        lanes, starts = index[:, 0], index[:, 3]
        if self.spec.selection and ((starts != 0) & (starts != cache.lengths[lanes])).any():
            raise ValueError(f"lanes {lanes}: expected positions 0 or {cache.lengths[lanes]}, found {starts}")
        ends = starts + index[:, 2]
        if (ends > cache.capacity).any():
            raise ValueError(f"lanes {lanes}: expected at most {cache.capacity} positions, found {ends}")
        # One comparison for both ends: below 0 is above all others without a sign.
        n_ids = self.spec.vocab_size + len(prefix)
        if (tokens.view(np.uint32) >= n_ids).any():
            raise ValueError(f"tokens: expected 0 to {n_ids - 1}, found {tokens.min()} to {tokens.max()}")
        cache.lengths[lanes] = ends
        if self.fused:
            return self.fused(cache, index, tokens, positions, prefix)
        row_lanes = np.repeat(lanes, index[:, 2])
        x = self._embed(tokens, positions, prefix)
        if self.spec.ngrams:
            runs = self._runs(cache, row_lanes, tokens, positions)
            x = self.backend.embed_runs(x, self._ngrams, runs)
        for layer in range(self.spec.n_layers):
            x = self._block(cache, layer, index, positions, _shifted(cache, layer, row_lanes, x))
        return self._norm(_shifted(cache, self.spec.n_layers, row_lanes, x), "final_norm")

    def predict(self, hidden: Floats, bucket_size: int) -> tuple[NDArray[np.int32], Floats]:
        """Of rows of `hidden`, the weights of all tokens, int32 `[R, V]`, and frequencies of buckets `[R, n]`."""
        return self.backend.predict(hidden, self._head, bucket_size)

    def logits(self, hidden: Floats) -> Floats:
        """Logits of rows of `hidden`, float32 `[R, V]`."""
        return self.backend.linear(self.backend.quantise_rows(hidden, self._head.limit), self._head)

    def _embed(self, tokens: NDArray[np.int32], positions: NDArray[np.int32], prefix: Floats) -> Floats:
        """Source: ARITHMETIC.md, sections 6.1 and 6.4."""
        matrix = self._embedding
        given = tokens >= self.spec.vocab_size
        known = np.where(given, 0, tokens)
        x: Floats = matrix.q[known].astype(np.float32) * matrix.scale[known][:, None]
        if self.spec.embedding_scale != 1.0:
            x = x * np.float32(self.spec.embedding_scale)
        x[given] = prefix[tokens[given] - self.spec.vocab_size]
        if self.spec.learned_positions:
            x = x + self._vectors["positions"][positions]
        return x

    def _runs(
        self, cache: Cache, lanes: NDArray[np.int32], tokens: NDArray[np.int32], positions: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        """The runs of tokens that end in `tokens`, the last one first; BOS stands before a window and for a prefix."""
        cache.tokens[lanes, positions] = np.where(tokens < self.spec.vocab_size, tokens, self.spec.bos_id)
        back = positions[:, None] - self._reach
        runs: NDArray[np.int64] = cache.tokens[lanes[:, None], np.maximum(back, 0)].astype(np.int64)
        runs[back < 0] = self.spec.bos_id
        return runs

    def _block(self, cache: Cache, layer: int, index: Segments, positions: NDArray[np.int32], x: Floats) -> Floats:
        prefix = f"layers.{layer}."
        between = self._attention(cache, layer, index, positions, x)
        mlp_input = x if self.spec.parallel_residual else between
        return self._added(self._mlp(prefix, mlp_input), prefix + "down", between, prefix + "post_mlp_norm")

    def _attention(self, cache: Cache, layer: int, index: Segments, positions: NDArray[np.int32], x: Floats) -> Floats:
        """The residual stream after attention."""
        spec, prefix = self.spec, f"layers.{layer}."
        q, k, v = self._normed_products(x, prefix + "attention_norm", [prefix + part for part in "qkv"])
        if spec.qk_norm:
            q = self._head_norm(q, prefix + "q_norm")
            k = self._head_norm(k, prefix + "k_norm")
        local = spec.is_local(layer)
        if spec.rotary_width:
            cos, sin = self._rotations[local]
            q = self.backend.rotate(q, spec.head_width, cos, sin, positions)
            k = self.backend.rotate(k, spec.head_width, cos, sin, positions)
        heads = q.reshape(len(q), spec.n_heads, spec.head_width)
        if spec.selection:
            y = self.backend.selective_attention(cache, layer, index, heads, k, v, spec.attention_scale)
        else:
            self.backend.write_cache(cache, layer, index, k, v)
            window = spec.local_window if local else 0
            y = self.backend.attention(cache, layer, index, heads, spec.attention_scale, window)
        rows = self.backend.quantise_rows(y.reshape(len(q), -1), self._matrices[prefix + "o"].limit)
        return self._added(rows, prefix + "o", x, prefix + "post_attention_norm")

    def _mlp(self, prefix: str, x: Floats) -> Rows:
        """What the MLP's last matrix is multiplied with."""
        kind, limit = self.spec.activation, self._matrices[prefix + "down"].limit
        names = [prefix + "up"] if self.spec.mlp == "plain" else [prefix + "gate", prefix + "up"]
        gate, *up = self._normed_products(x, prefix + "mlp_norm", names)
        return self.backend.activate_rows(kind, gate, up[0] if up else None, limit)

    def _added(self, rows: Rows, name: str, residual: Floats, norm: str) -> Floats:
        """The residual stream with what a block's matrix `name` makes of `rows`, normed where the family does so."""
        if not self.spec.sandwich_norms:
            return self.backend.linear(rows, self._matrices[name], residual)
        return residual + self._norm(self.backend.linear(rows, self._matrices[name]), norm)

    def _normed_products(self, x: Floats, norm: str, names: list[str]) -> list[Floats]:
        """Products of the rows of `x`, normed, with several matrices; quantised once for each limit of theirs."""
        matrices = [self._matrices[name] for name in names]
        limits = {matrix.limit for matrix in matrices}
        if len(limits) == 1:
            weight, bias = self._vectors[norm], self._norm_bias(norm)
            rows = {limit: self.backend.norm_rows(x, weight, bias, self.spec.norm_eps, limit) for limit in limits}
        else:
            normed = self._norm(x, norm)
            rows = {limit: self.backend.quantise_rows(normed, limit) for limit in limits}
        return [self.backend.linear(rows[matrix.limit], matrix) for matrix in matrices]

    def _norm_bias(self, name: str) -> Floats | None:
        return self._vectors[name + ".bias"] if self.spec.norm == "layer" else None

    def _norm(self, x: Floats, name: str) -> Floats:
        return self.backend.norm(x, self._vectors[name], self._norm_bias(name), self.spec.norm_eps)

    def _head_norm(self, x: Floats, name: str) -> Floats:
        heads = x.reshape(-1, self.spec.head_width)
        return self.backend.norm(heads, self._vectors[name], None, self.spec.norm_eps).reshape(x.shape)


def _shifted(cache: Cache, layer: int, lanes: NDArray[np.int32], x: Floats) -> Floats:
    """Rows with what their lanes are shifted by before a layer. Source: ARITHMETIC.md, section 6.4."""
    steered = cache.steered[lanes]
    if not steered.any():
        return x
    shifted = x.copy()
    shifted[steered] += cache.shifts[lanes[steered], layer]
    return shifted


def _lay_out(segments: Sequence[Segment]) -> tuple[Segments, NDArray[np.int32], NDArray[np.int32]]:
    """Segments as `[n, 4]` (lane, first row, rows, position), all tokens, and their positions."""
    counts = np.array([len(segment.tokens) for segment in segments], dtype=np.int32)
    first_rows = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)[:-1]])
    lanes = np.array([segment.lane for segment in segments], dtype=np.int32)
    starts = np.array([segment.position for segment in segments], dtype=np.int32)
    index = np.stack([lanes, first_rows, counts, starts], axis=1)
    tokens = np.concatenate([segment.tokens for segment in segments]).astype(np.int32)
    rows = np.arange(len(tokens), dtype=np.int32)
    positions = np.repeat(starts - first_rows, counts) + rows
    return np.ascontiguousarray(index), tokens, positions.astype(np.int32)
