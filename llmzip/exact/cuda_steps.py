"""Steps of many lanes, captured once and repeated: a step of many small kernels takes longer to launch than to run.

The first step of so many rows runs like everything else, but on inputs at fixed places, and compiles what is not
compiled yet; the second is captured. Rows are filled up to a few numbers, so that lanes that end do not ask for a
capture each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from llmzip.exact.cuda_batch import Batch, Rows, pack, unpack
from llmzip.exact.cuda_cache import CudaCache
from llmzip_kernels.launching import round_up, to_device

Run = Callable[[], torch.Tensor]
Model = Callable[[CudaCache, Batch], torch.Tensor]
# Makes of a computation something that repeats it, on whatever its inputs hold by then; does not run it yet.
Capture = Callable[[Run], Run]
# A step has a multiple of this part of all lanes.
_PARTS = 8


def capture_graph(run: Run) -> Run:
    """Capture a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        y = run()

    def repeat() -> torch.Tensor:
        graph.replay()
        return y

    return repeat


class Steps:
    """The steps of one model; what is captured lies with the caches.

    Args:
        capture: how.
        run: the model.
        selective: whether its attention is.
    """

    def __init__(self, capture: Capture, run: Model, *, selective: bool) -> None:
        self._capture, self._run, self._selective = capture, run, selective

    def __call__(self, cache: CudaCache, rows: Rows) -> torch.Tensor:
        """Rows `[R, D]` of a step, one a lane."""
        n_rows = min(cache.n_lanes, round_up(len(rows.tokens), -(-cache.n_lanes // _PARTS)))
        shifted = rows.shifted(cache)
        packed = to_device(pack(cache, rows.filled_up(n_rows, cache.n_lanes), selective=self._selective))
        step = cache.steps.get((n_rows, shifted))
        if step is None:
            step = _Step(unpack(packed, n_rows, step=True, shifted=shifted), packed, self._run, self._capture)
            cache.steps[n_rows, shifted] = step
        # A copy, for the next repetition overwrites what this one gives.
        return step(cache, packed)[: len(rows.tokens)].clone()


class _Step:
    """A step of a cache whose inputs are a batch in `packed`; plain at first, then captured, then repeated.

    It does not hold the cache, which holds it: the memory of both is free as soon as nobody has the cache.
    """

    def __init__(self, batch: Batch, packed: torch.Tensor, run: Model, capture: Capture) -> None:
        self._batch, self._packed, self._run, self._capture = batch, packed, run, capture
        self._repeat: Run | None = None
        self._is_first = True

    def __call__(self, cache: CudaCache, packed: torch.Tensor) -> torch.Tensor:
        self._packed.copy_(packed)
        run = functools.partial(self._run, cache, self._batch)
        if self._is_first:
            self._is_first = False
            return run()
        if self._repeat is None:
            self._repeat = self._capture(run)
        return self._repeat()
