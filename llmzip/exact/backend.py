"""What the transformer asks of a backend, and the choice of one.

A backend holds matrices and caches in whatever form it likes; its results equal those of
`llmzip.exact.reference` bit for bit. Rows of all lanes stand under each other; `segments`, int32
`[n, 4]`, says of each run of rows: lane, first row, number of rows, position of the first.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llmzip.errors import BackendError, ExactnessError, LlmzipError
from llmzip.exact import reference
from llmzip.exact.matrix import ONE_LIMB, TWO_LIMBS, QuantisedMatrix, Rows, quantise_matrix
from llmzip.exact.spec import ModelSpec

Floats = NDArray[np.float32]
Segments = NDArray[np.int32]
# What the driver of an NVIDIA GPU shows to programs, on Linux and in its subsystem of Windows.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
# A whole model at once: rows after the last norm, of a cache, segments, tokens, positions and prefix.
RunModel = Callable[[Any, Segments, NDArray[np.int32], NDArray[np.int32], Floats], Floats]


class Cache:
    """What a model remembers of some lanes; backends add keys and values for every layer.

    Attributes:
        tokens: what stands at each position, int32 `[n_lanes, capacity]`.
        lengths: how many positions of each lane are filled, int32 `[n_lanes]`.
        shifts: of steered lanes what is added before each layer and before the last norm, float32
            `[n_lanes, L + 1, D]`; `[n_lanes, 0, 0]` as long as no lane is steered.
        steered: which lanes are, bool `[n_lanes]`.
    """

    def __init__(self, n_lanes: int, capacity: int) -> None:
        self.n_lanes = n_lanes
        self.capacity = capacity
        self.tokens = np.zeros((n_lanes, capacity), dtype=np.int32)
        self.lengths = np.zeros(n_lanes, dtype=np.int32)
        self.shifts = np.zeros((n_lanes, 0, 0), dtype=np.float32)
        self.steered = np.zeros(n_lanes, dtype=np.bool_)

    def steer(self, lane: int, shifts: Floats | None) -> None:
        """Shift what comes into a lane from now on by `[L + 1, D]`, or no longer; before its position 0 only."""
        self.steered[lane] = shifts is not None
        if shifts is not None:
            if not self.shifts.size:
                self.shifts = np.zeros((self.n_lanes, *shifts.shape), dtype=np.float32)
            self.shifts[lane] = shifts

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays."""
        return _n_bytes(list(vars(self).values()))


def _n_bytes(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_n_bytes, value))
    return int(getattr(value, "nbytes", 0))


class Sizes(NamedTuple):
    """How much work at once suits a backend; nothing that is computed depends on it.

    Attributes:
        rows: that go through the layers together.
        outputs: logits that are in memory together.
        windows: of text that an encoder has evaluated together.
    """

    rows: int
    outputs: int
    windows: int


class Backend(Protocol):
    """The operations of ARITHMETIC.md; see the function of the same name in the reference."""

    name: str
    sizes: Sizes
    # Whether each model is to be compared with the CPU's before it codes, for devices compile in many ways.
    needs_proof: bool

    def load(self, matrix: QuantisedMatrix) -> Any:
        """Lay out a matrix for `linear`."""

    def load_tables(self, tables: Sequence[QuantisedMatrix]) -> Any:
        """Lay out n-gram tables for `embed_runs`."""

    def embed_runs(self, x: Floats, tables: Any, runs: NDArray[np.int64]) -> Floats:
        """Add what loaded tables hold for runs of tokens `[R, n]`, the last token first."""

    def quantise_rows(self, x: Floats, limit: int) -> Rows:
        """Quantise rows to integers of at most `limit`."""

    def linear(self, rows: Rows, matrix: Any, residual: Floats | None = None) -> Floats:
        """Multiply quantised rows with a loaded matrix, and add the residual if there is one."""

    def norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        """RMS norm, or layer norm where there is a bias."""

    def norm_rows(self, x: Floats, weight: Floats, bias: Floats | None, eps: float, limit: int) -> Rows:
        """`norm`, then `quantise_rows`."""

    def rotate(self, x: Floats, head_width: int, cos: Floats, sin: Floats, positions: NDArray[np.int32]) -> Floats:
        """Rotate the heads of `[R, H * K]`, perhaps in place."""

    def activate(self, kind: str, gate: Floats, up: Floats | None) -> Floats:
        """Apply the activation to `gate`, times `up` if there is one."""

    def activate_rows(self, kind: str, gate: Floats, up: Floats | None, limit: int) -> Rows:
        """`activate`, then `quantise_rows`."""

    def new_cache(self, spec: ModelSpec, n_lanes: int, capacity: int) -> Cache:
        """Make an empty cache."""

    def write_cache(self, cache: Any, layer: int, segments: Segments, k: Floats, v: Floats) -> None:
        """Quantise and keep keys and values `[R, Hk * K]` at their segments' positions."""

    def attention(self, cache: Any, layer: int, segments: Segments, q: Floats, scale: float, window: int) -> Floats:
        """Attend with queries `[R, H, K]` to their lanes' keys up to their own positions."""

    def selective_attention(
        self, cache: Any, layer: int, segments: Segments, q: Floats, k: Floats, v: Floats, scale: float
    ) -> Floats:
        """Keep keys and values `[R, Hk * K]`, attend with queries `[R, H, K]`, and forget, row by row of each lane.

        A segment at position 0 begins its lane anew; any other continues where the lane stands.
        """

    def fuse(
        self,
        spec: ModelSpec,
        matrices: Mapping[str, Any],
        vectors: Mapping[str, Floats],
        rotation: tuple[Floats, Floats] | None,
        embedding: QuantisedMatrix,
        ngrams: Any,
    ) -> RunModel | None:
        """A whole model in one call, where that is faster than the operations one by one; None where it is not.

        Args:
            spec: of the model.
            matrices: loaded; those of the layers are needed.
            vectors: all.
            rotation: cosines and sines of all positions, or None.
            embedding: of the tokens, not loaded.
            ngrams: loaded tables, or None.
        """

    def predict(self, hidden: Floats, matrix: Any, bucket_size: int) -> tuple[NDArray[np.int32], Floats]:
        """Of rows `[R, D]` after the last norm the integer weights of all tokens, and the shares of buckets.

        Args:
            hidden: rows.
            matrix: loaded, `[V, D]`: what turns them into logits.
            bucket_size: n tokens, SPEC.md, section 9.

        Returns:
            `output_weights` `[R, V]` of the logits; of the coder's range what each bucket has, `[R, n]`.
        """

    def member_frequencies(self, weights: NDArray[np.int32], buckets: NDArray[np.int32], bucket_size: int) -> Floats:
        """Share the coder's range among the tokens of one bucket a row, `[R, n]`."""


def load_backend(name: str | None = None, device: str = "cpu") -> Backend:
    """The backend called `name` (`cpu`, `cuda` or `reference`), self-tested once a process.

    Args:
        name: None means the environment variable `LLMZIP_BACKEND`, or that of the device.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one that can be used.

    Raises:
        BackendError: no backend has this name, or it cannot run here.
        ExactnessError: the backend differs from the reference on this machine.
    """
    name = name or os.environ.get("LLMZIP_BACKEND")
    return _best_backend() if name is None and device == "auto" else _load(name or device)


@functools.cache
def _best_backend() -> Backend:
    """Look for what costs nothing first: torch takes seconds to load."""
    if any(map(os.path.exists, _DRIVERS)) and importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(BackendError):
            return _load("cuda")
    return _load("cpu")


@functools.cache
def _load(name: str) -> Backend:
    if name == "reference":
        from llmzip.exact.reference_backend import ReferenceBackend

        return ReferenceBackend()
    if name == "cuda":
        return _cuda_backend()
    if name != "cpu":
        raise BackendError(f"backend: expected cpu, cuda or reference, found {name!r}")
    from llmzip.exact.cpu import CpuBackend

    backend = CpuBackend()
    self_test(backend)
    return backend


def _cuda_backend() -> Backend:
    try:
        from llmzip.exact.cuda import make_backend
    except ImportError as error:
        raise BackendError(f"cuda: expected triton, found none ({error}); pip install 'llmzip[gpu]'") from error
    backend = make_backend()
    try:
        self_test(backend)
    except LlmzipError:
        raise
    except Exception as error:  # a GPU that is too old, a driver, no compiler: each library has errors of its own
        words = " ".join(str(error).split())[:200]
        raise BackendError(f"cuda: expected kernels that run, found {type(error).__name__}: {words}") from error
    return backend


def self_test(backend: Backend) -> None:
    """Compare a backend's products with the reference on worst-case operands.

    Saturating or rounding multiply instructions show on rows of extremes; odd sizes show padding.

    Raises:
        ExactnessError: any element differs.
    """
    n_terms = 301
    extremes = np.ones((19, n_terms), dtype=np.float32)
    extremes[1::2] = -1
    extremes[2] = np.where(np.arange(n_terms) % 2, -1, 1)
    columns = np.vstack([extremes, (np.arange(14 * n_terms) % 255 - 127).reshape(14, n_terms).astype(np.float32)])
    q, scale = quantise_matrix(columns)
    for limit in (ONE_LIMB, TWO_LIMBS):
        matrix = QuantisedMatrix(q, scale, None, limit)
        expected = reference.linear(reference.quantise_rows(extremes, limit), matrix)
        found = backend.linear(backend.quantise_rows(extremes, limit), backend.load(matrix))
        if not np.array_equal(found, expected):
            raise ExactnessError(f"backend {backend.name}: products differ from the reference on this machine")
