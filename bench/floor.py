"""The floor under encoding: the integer products alone, over the same windows, rows and threads.

Everything else that the encoder does (norms, rotations, softmax, frequencies, the range coder) is what it
takes above this. Rows are quantised beforehand; products of attention have the average number of
positions that a block's rows see, of selective layers with a budget at most that.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmzip.codec import Codec, Tokens
from llmzip.exact.backend import Backend
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix, Rows
from llmzip.windows import Window


class Floor:
    """All products of a codec's model, its matrices loaded once more."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._backend = codec.backend
        spec, matrices = codec.artefact.spec, codec.artefact.parameters.matrices
        head = "embed" if spec.tied_head else "head"
        self._head = _Product(self._backend, matrices[head])
        self._layers = [
            _Product(self._backend, matrix) for name, matrix in matrices.items() if name.startswith("layers.")
        ]
        self._attention = {n_seen: self._attention_products(n_seen) for n_seen in self._all_seen()}

    def run(self, chunks: Sequence[Tokens], pool: ThreadPoolExecutor) -> None:
        """The products of encoding `chunks`, on the pool's threads."""
        windows = [window for tokens in chunks for window in self._codec.windowing.cover(len(tokens))]
        for _ in pool.map(self._window, windows):
            pass

    def _window(self, window: Window) -> None:
        spec, n_inputs = self._codec.artefact.spec, window.stop - window.start
        for first in range(0, n_inputs, self._codec.sizes.rows):
            n_rows = min(self._codec.sizes.rows, n_inputs - first)
            for product in self._layers:
                product.run(n_rows)
            for layer in range(spec.n_layers):
                for product in self._attention[self._seen(first, layer)] * spec.n_kv_heads:
                    product.run(n_rows * spec.n_heads // spec.n_kv_heads)
        n_coded = window.stop - window.coded
        step = max(1, self._codec.sizes.outputs // spec.vocab_size)
        for first in range(0, n_coded, step):
            self._head.run(min(step, n_coded - first))

    def _seen(self, first: int, layer: int) -> int:
        """Positions that the rows of the block from `first` on see, on average, in a layer."""
        spec = self._codec.artefact.spec
        limit = spec.local_window if spec.is_local(layer) else 0
        if spec.selection:
            limit = spec.selection.budget(layer)
        n_seen = first + self._codec.sizes.rows // 2
        return min(n_seen, limit) if limit else n_seen

    def _all_seen(self) -> set[int]:
        firsts = range(0, self._codec.windowing.window, self._codec.sizes.rows)
        return {self._seen(first, layer) for first in firsts for layer in range(self._codec.artefact.spec.n_layers)}

    def _attention_products(self, n_seen: int) -> list[_Product]:
        """Queries times keys, and weights times values, for one key head."""
        width = self._codec.artefact.spec.head_width
        return [_Product(self._backend, _ones(shape)) for shape in ((n_seen, width), (width, n_seen))]


class _Product:
    """A matrix as the backend holds it, and rows to multiply with it."""

    def __init__(self, backend: Backend, matrix: QuantisedMatrix) -> None:
        self._backend = backend
        self._matrix: Any = backend.load(matrix)
        self._limit = matrix.limit
        self._width = matrix.q.shape[1]
        self._rows: dict[int, Rows] = {}

    def run(self, n_rows: int) -> None:
        if n_rows not in self._rows:
            self._rows[n_rows] = self._backend.quantise_rows(_noise(n_rows, self._width), self._limit)
        self._backend.linear(self._rows[n_rows], self._matrix)


def _ones(shape: tuple[int, int]) -> QuantisedMatrix:
    return QuantisedMatrix(np.ones(shape, np.int8), np.ones(shape[0], np.float32), None, ONE_LIMB)


def _noise(n_rows: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((n_rows, width), dtype=np.float32)
