"""The CUDA backend: the kernels of `llmzip_kernels` on what lies on a GPU.

A model runs through `fuse` and stays on the device from its tokens to the weights of all tokens; only frequencies
come back. The operations one by one take arrays of either kind and give those of NumPy: they are for the self-test, and
for tests. With TRITON_INTERPRET=1 kernels and tensors are on the CPU, which proves the same code slowly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from llmzip.errors import BackendError
from llmzip.exact.backend import Floats, RunModel, Segments, Sizes
from llmzip.exact.cuda_batch import Rows as BatchRows
from llmzip.exact.cuda_batch import to_batch
from llmzip.exact.cuda_cache import CudaCache, DeviceArray
from llmzip.exact.cuda_guard import Guard
from llmzip.exact.cuda_model import CudaModel
from llmzip.exact.cuda_steps import Capture, capture_graph
from llmzip.exact.matrix import ONE_LIMB, QuantisedMatrix
from llmzip.exact.spec import ModelSpec
from llmzip_kernels import activation, attention, linear, norm, output, quantise, runs, selection
from llmzip_kernels.heads import Heads, Rotation, new_rows_store, quantise_heads, rotate
from llmzip_kernels.launching import is_interpreted, to_device
from llmzip_kernels.linear import DeviceMatrix

_LEAST_TRITON = (3, 3)


class LoadedTables(NamedTuple):
    """All n-gram tables of a model: int8 `[T, rows, D / T]` and their scales `[T, rows]`."""

    q: torch.Tensor
    scale: torch.Tensor


class CudaBackend:
    """See `llmzip.exact.backend.Backend`.

    Args:
        capture: how steps of models become something to repeat; None for steps that run like everything else.
    """

    name = "cuda"
    # Eight windows of 1,024 tokens fill a device; their logits over 49,152 tokens go by parts of 0.5 GB.
    sizes = Sizes(rows=8192, outputs=1 << 27, windows=8)

    def __init__(self, capture: Capture | None = None) -> None:
        self._capture = capture
        # The interpreter runs the very steps, and takes long.
        self.needs_proof = not is_interpreted()
        # Captures of one thread and allocations of another must not meet.
        self._guard = Guard()

    def load(self, matrix: QuantisedMatrix) -> DeviceMatrix:
        if ONE_LIMB * ONE_LIMB * matrix.q.shape[1] >= 1 << 31:
            raise BackendError(f"cuda: expected matrices of at most 133144 terms, found {matrix.q.shape[1]}")
        with self._guard:
            return linear.load_matrix(matrix)

    def load_tables(self, tables: Sequence[QuantisedMatrix]) -> LoadedTables:
        q, scale = np.stack([table.q for table in tables]), np.stack([table.scale for table in tables])
        with self._guard:
            return LoadedTables(to_device(q), to_device(scale))

    def embed_runs(self, x: Floats, tables: LoadedTables, runs_of: NDArray[np.int64]) -> Floats:
        return _to_host(runs.embed_runs(_tensor(x), *tables, _tensor(runs_of.astype(np.int32))))

    def quantise_rows(self, x: Floats | DeviceArray, limit: int) -> Any:
        return quantise.quantise_rows(_tensor(x), limit)

    def linear(self, rows: Any, matrix: DeviceMatrix, residual: Floats | None = None) -> Floats:
        return _to_host(linear.linear(rows, matrix, None if residual is None else _tensor(residual)))

    def norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        return _to_host(norm.norm(*_norm_arguments(x, weight, bias, eps)))

    def norm_rows(self, x: Floats, weight: Floats, bias: Floats | None, eps: float, limit: int) -> Any:
        return norm.norm_rows(*_norm_arguments(x, weight, bias, eps), limit)

    def rotate(self, x: Floats, head_width: int, cos: Floats, sin: Floats, positions: NDArray[np.int32]) -> Floats:
        heads = _tensor(x).reshape(len(x), -1, head_width)
        y = rotate(heads, Rotation(_tensor(cos), _tensor(sin)), _tensor(positions))
        return _to_host(y).reshape(x.shape)

    def activate(self, kind: str, gate: Floats, up: Floats | None) -> Floats:
        return _to_host(activation.activate(kind, _tensor(gate), None if up is None else _tensor(up)))

    def activate_rows(self, kind: str, gate: Floats, up: Floats | None, limit: int) -> Any:
        return activation.activate_rows(kind, _tensor(gate), None if up is None else _tensor(up), limit)

    def new_cache(self, spec: ModelSpec, n_lanes: int, capacity: int) -> CudaCache:
        with self._guard:
            return CudaCache(spec, n_lanes, capacity, self._guard)

    def write_cache(self, cache: CudaCache, layer: int, segments: Segments, k: Floats, v: Floats) -> None:
        batch = to_batch(cache, _rows(segments, len(k)), selective=False)
        heads = cache.heads._replace(n_heads=0)
        x = torch.cat([_tensor(k), _tensor(v)], dim=1)
        quantise_heads(x, heads, None, None, batch.positions, cache.stores[layer], batch.lanes, batch.positions)

    def attention(
        self, cache: CudaCache, layer: int, segments: Segments, q: Floats, scale: float, window: int
    ) -> Floats:
        batch = to_batch(cache, _rows(segments, len(q)), selective=False)
        x, store = _tensor(q).reshape(len(q), -1), cache.stores[layer]
        heads = Heads(q.shape[1], 0, q.shape[2])
        rows = quantise_heads(x, heads, None, None, batch.positions, store, batch.lanes, batch.positions)
        factor = float(np.float32(scale))
        y = attention.attention(*rows, batch.tiles, store, cache.heads, factor, window, step=batch.step)
        return _to_host(y).reshape(q.shape)

    def selective_attention(
        self, cache: CudaCache, layer: int, segments: Segments, q: Floats, k: Floats, v: Floats, scale: float
    ) -> Floats:
        batch, rules = to_batch(cache, _rows(segments, len(q)), selective=True), cache.rules
        x = torch.cat([_tensor(q).reshape(len(q), -1), _tensor(k), _tensor(v)], dim=1)
        new = new_rows_store(len(q), cache.heads, x.device)
        rows = quantise_heads(x, cache.heads, None, None, batch.positions, new, batch.own, batch.zeros)
        y = selection.selective_attention(
            *rows,
            batch.tiles,
            new,
            cache.stores[layer],
            cache.slots[layer],
            cache.heads,
            float(np.float32(scale)),
            rules,
        )
        return _to_host(y).reshape(q.shape)

    def fuse(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, DeviceMatrix],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        embedding: QuantisedMatrix,
        ngrams: LoadedTables | None,
    ) -> RunModel | None:
        with self._guard:
            model = CudaModel(spec, matrices, vectors, rotation, embedding, ngrams, self._capture)

        def run(
            cache: CudaCache,
            segments: Segments,
            tokens: NDArray[np.int32],
            positions: NDArray[np.int32],
            prefix: Floats,
        ) -> Any:
            with self._guard:
                return model(cache, BatchRows(segments, tokens, positions), prefix)

        return run

    def predict(self, hidden: Floats | DeviceArray, matrix: DeviceMatrix, bucket_size: int) -> tuple[Any, Floats]:
        with self._guard:
            logits = linear.linear(quantise.quantise_rows(_tensor(hidden), matrix.limit), matrix)
            weights, sums = output.output_weights(logits, bucket_size)
            return DeviceArray(weights), _to_host(output.bucket_frequencies(sums))

    def member_frequencies(
        self, weights: NDArray[np.int32] | DeviceArray, buckets: NDArray[np.int32], bucket_size: int
    ) -> Floats:
        with self._guard:
            return _to_host(output.member_frequencies(_tensor(weights), _tensor(buckets), bucket_size))


def make_backend() -> CudaBackend:
    """The backend of this machine's GPU, or of its interpreter.

    Raises:
        BackendError: there is no GPU that torch can use, or a Triton that does not know all that kernels say.
    """
    if tuple(map(int, triton.__version__.split(".")[:2])) < _LEAST_TRITON:
        raise BackendError(f"cuda: expected triton 3.3 or later, found {triton.__version__}")
    if is_interpreted():
        return CudaBackend()
    if not torch.cuda.is_available():
        raise BackendError("cuda: expected an NVIDIA GPU and a torch that was built for it, found none")
    return CudaBackend(capture_graph)


def _tensor(array: NDArray[Any] | DeviceArray) -> torch.Tensor:
    return array.tensor.contiguous() if isinstance(array, DeviceArray) else to_device(array)


def _to_host(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _norm_arguments(
    x: Floats, weight: Floats, bias: Floats | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]:
    return _tensor(x), _tensor(weight), None if bias is None else _tensor(bias), float(np.float32(eps))


def _rows(segments: Segments, n_rows: int) -> BatchRows:
    """Rows of which only the places matter."""
    starts = np.repeat(segments[:, 3] - segments[:, 1], segments[:, 2])
    own = np.arange(n_rows, dtype=np.int32)
    return BatchRows(segments, np.zeros_like(own), (starts + own).astype(np.int32))
