# ruff: noqa: TID253
from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("triton")

from llmzip.codec import Codec
from llmzip.errors import BackendError, ConfigError
from llmzip.exact import backend as backends
from llmzip.exact.backend import Backend, load_backend, self_test
from llmzip.exact.cuda import CudaBackend
from llmzip.exact.cuda_cache import CudaCache
from llmzip.exact.cuda_steps import Run, capture_graph
from llmzip.exact.reference_backend import ReferenceBackend
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Segment, Transformer
from llmzip.lanes import Lanes
from llmzip.loading import start_workers
from llmzip.models.artefact import Artefact
from llmzip.options import CodingOptions
from llmzip.resources import Share, share_out
from llmzip.windows import Windowing

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]


class _Repeated:
    """A capture that can be had without a GPU: what is captured runs again, from the inputs at their places."""

    def __init__(self) -> None:
        self.n_captured = self.n_repeated = 0

    def __call__(self, run: Run) -> Run:
        self.n_captured += 1

        def repeat() -> torch.Tensor:
            self.n_repeated += 1
            return run()

        return repeat


class _OneByOne(CudaBackend):
    def fuse(self, *_model: object) -> None:
        return None


def _ids(spec: ModelSpec, n: int) -> Ids:
    return (np.arange(n) ** 3 % spec.vocab_size).astype(np.int32)


def _rows_of_floats(spec: ModelSpec, n: int) -> Floats:
    return np.sin(np.arange(n * spec.width, dtype=np.float64)).astype(np.float32).reshape(n, spec.width)


def _run(model: Transformer, cache: Any, n_steps: int = 1) -> list[Any]:
    """Lanes with and without a prefix, shifted and not, some in two parts; then steps of two and of all of them.

    Of `n_steps` of as many lanes the first runs, the second is captured, all others repeat it.
    """
    spec = model.spec
    prefix, tokens = _rows_of_floats(spec, 2), _ids(spec, 7)
    cache.steer(1, _rows_of_floats(spec, spec.n_layers + 1))
    given = np.array([tokens[0], spec.vocab_size, spec.vocab_size + 1, *tokens[1:5]], np.int32)
    rows = [model.hidden(cache, [Segment(2, 0, given), Segment(1, 0, given[:2])], prefix)]
    rows.append(model.hidden(cache, [Segment(1, 2, given[2:]), Segment(0, 0, tokens)], prefix))
    for step, lanes in enumerate([[2, 0], [1, 2, 0]] * n_steps):
        positions = cache.lengths[lanes]
        rows.append(model.step(cache, np.array(lanes, np.int32), positions, tokens[step % 5 :][: len(lanes)], prefix))
    return rows


def _equal(found: list[Any], expected: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_model_equals_the_reference(variant: ModelSpec, make_parameters: Any) -> None:
    """Of every variant: prefills of several lanes, continued ones, steps, prefixes and shifts; and so its weights."""
    parameters = make_parameters(variant)
    model, reference = (Transformer(variant, parameters, b) for b in (CudaBackend(), ReferenceBackend()))
    found, expected = (_run(m, m.new_cache(3, 16)) for m in (model, reference))
    assert _equal(found, expected)
    (weights, buckets), (expected_weights, expected_buckets) = (
        model.predict(found[1], 10),
        reference.predict(expected[1], 10),
    )
    assert np.array_equal(weights, expected_weights)
    assert np.array_equal(buckets, expected_buckets)
    chosen = (np.arange(len(weights)) % 9).astype(np.int32)
    members = model.backend.member_frequencies(weights, chosen, 10)
    assert np.array_equal(members, reference.backend.member_frequencies(expected_weights, chosen, 10))


@pytest.mark.parametrize("variant", ["llama", "selective"], indirect=True)
def test_captured_steps_are_the_same(variant: ModelSpec, make_parameters: Any) -> None:
    """The first runs, the second is captured, the others repeat it; fewer rows are filled up to as many."""
    capture = _Repeated()
    backend = CudaBackend(capture)
    parameters = make_parameters(variant)
    plain, model = (Transformer(variant, parameters, b) for b in (CudaBackend(), backend))
    lanes, tokens = np.arange(9, dtype=np.int32), _ids(variant, 9)
    caches = [m.new_cache(9, 16) for m in (plain, model)]
    for n in (2, 1, 2):
        some = lanes[4 : 4 + n][::-1].copy()
        step = (some, caches[0].lengths[some], tokens[:n])
        assert _equal([model.step(caches[1], *step)], [plain.step(caches[0], *step)])
    assert isinstance(caches[1], CudaCache)
    assert list(caches[1].steps) == [(2, False)]
    assert (capture.n_captured, capture.n_repeated) == (1, 2)
    # On a device the rows that fill up would run at once, all in the same slots.
    assert not any(slots.used[-1] for slots in caches[1].slots)


@pytest.mark.parametrize("variant", ["llama"], indirect=True)
def test_a_cache_is_gone_when_nobody_has_it(variant: ModelSpec, make_parameters: Any) -> None:
    """Memory of a device does not wait for the collector, which knows nothing of how much there is."""
    backend = CudaBackend(lambda run: functools.partial(torch.clone, run()))
    model = Transformer(variant, make_parameters(variant), backend)
    cache, lanes = model.new_cache(2, 16), np.arange(2, dtype=np.int32)
    for _ in range(2):
        model.step(cache, lanes, cache.lengths[lanes], lanes)
    found = weakref.ref(cache)
    del cache
    assert found() is None


@pytest.mark.parametrize("variant", ["gemma3", "selective"], indirect=True)
def test_operations_one_by_one_are_the_model(variant: ModelSpec, make_parameters: Any) -> None:
    """The backend's single operations compute what the reference's do, whichever of them a model takes."""
    parameters = make_parameters(variant)
    tokens = _ids(variant, 7)
    found, expected = (Transformer(variant, parameters, backend) for backend in (_OneByOne(), ReferenceBackend()))
    segments = [Segment(1, 0, tokens), Segment(0, 0, tokens[:2])]
    rows = found.hidden(found.new_cache(2, 8), segments)
    assert np.array_equal(rows, expected.hidden(expected.new_cache(2, 8), segments))


@pytest.mark.parametrize("variant", ["gpt_neox"], indirect=True)
def test_a_row_does_not_know_its_batch(variant: ModelSpec, make_parameters: Any) -> None:
    """A prefix alone, and a lane alone, give the rows that they give within more."""
    model = Transformer(variant, make_parameters(variant), CudaBackend())
    tokens = _ids(variant, 40)
    whole = np.asarray(model.hidden(model.new_cache(2, 40), [Segment(1, 0, tokens), Segment(0, 0, tokens[3:9])]))
    assert np.array_equal(model.hidden(model.new_cache(1, 40), [Segment(0, 0, tokens[:17])]), whole[:17])
    assert np.array_equal(model.hidden(model.new_cache(1, 7), [Segment(0, 0, tokens[3:9])]), whole[40:])


@pytest.mark.parametrize("variant", ["llama"], indirect=True)
def test_what_was_in_a_cache_does_not_matter(variant: ModelSpec, make_parameters: Any) -> None:
    """A lane's places beyond its length may hold anything."""
    model = Transformer(variant, make_parameters(variant), CudaBackend())
    tokens = _ids(variant, 5)
    clean, poisoned = model.new_cache(1, 16), model.new_cache(1, 16)
    assert isinstance(poisoned, CudaCache)
    for store in poisoned.stores:
        store.keys.fill_(-127)
        store.values.fill_(127)
        store.key_scale.fill_(1e30)
        store.value_scale.fill_(1e30)
    rows = [model.hidden(cache, [Segment(0, 0, tokens)]) for cache in (clean, poisoned)]
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("variant", ["selective"], indirect=True)
def test_a_cache_counts_what_lies_on_the_device(variant: ModelSpec) -> None:
    """Keys, values, scales, F, places: budgets make them fewer; and shifts of lanes."""
    cache = CudaBackend().new_cache(variant, 2, 256)
    lane = 2 * (2 * 16 + 2 * 4)
    assert cache.n_bytes > 3 * (64 + 256) * lane
    assert cache.n_bytes < 3 * (64 + 256 + 64) * lane
    before = cache.n_bytes
    cache.steer(0, np.zeros((3, variant.width), np.float32))
    # On the device for one lane more than on the host.
    assert cache.n_bytes == before + (3 + 2) * 3 * variant.width * 4


def test_archives_go_both_ways(tiny_artefact: Artefact, sample_text: bytes) -> None:
    """What one backend encodes the other decodes, with the same canary and byte for byte the same payload."""
    codecs = [
        Codec(tiny_artefact, Windowing(32, 8), backend) for backend in (CudaBackend(_Repeated()), load_backend("cpu"))
    ]
    text = sample_text[1000:1024]
    payloads = [next(codec.encode([codec.tokenise([text])[0]], map)) for codec in codecs]
    assert payloads[0] == payloads[1]
    assert codecs[0].canary() == codecs[1].canary()
    assert _decoded(codecs[0], payloads[0], len(text)) == text


def _decoded(codec: Codec, payload: bytes, n_bytes: int) -> bytes:
    lanes, index = Lanes(codec, 2), np.array([1], dtype=np.int32)
    lanes.begin(1, payload, n_bytes)
    while not len(lanes.finished(index)):
        lanes.step(index)
    return lanes.end(1)


def test_the_backend_passes_the_self_test() -> None:
    """The same one that the CPU's must pass when it is loaded."""
    found = load_backend("cuda")
    self_test(found)
    assert found.name == "cuda"


def test_without_a_gpu_it_is_refused_in_one_line() -> None:
    """By a process without the interpreter; `auto` takes the CPU there, and loads no torch to find out."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code = (
        "import sys\n"
        "from llmzip.exact.backend import load_backend\n"
        "assert load_backend(device='auto').name == 'cpu'\n"
        "assert 'torch' not in sys.modules and 'triton' not in sys.modules\n"
        "load_backend(device='cuda')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "LLMZIP_B"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert (
        last == "llmzip.errors.BackendError: cuda: expected an NVIDIA GPU and a torch that was built for it, found none"
    )


def test_the_environment_goes_before_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMZIP_BACKEND wins; without it the device counts, and `auto` is the CPU without a driver."""
    monkeypatch.setenv("LLMZIP_BACKEND", "reference")
    assert load_backend(device="cuda").name == "reference"
    monkeypatch.delenv("LLMZIP_BACKEND")
    assert load_backend(device="cuda").name == "cuda"
    monkeypatch.setattr(backends, "_DRIVERS", ("/nowhere/at/all",))
    backends._best_backend.cache_clear()
    assert load_backend(device="auto").name == "cpu"
    backends._best_backend.cache_clear()


def test_another_device_is_refused() -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match="device: expected auto, cpu, cuda, found 'abacus'"):
        CodingOptions(device="abacus")


def test_workers_get_the_same_backend(tiny_artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the codec that they work for; and a GPU is shared with no worker, nor its lanes among threads, unasked."""
    monkeypatch.setattr("llmzip.worker_pool.WorkerPool", lambda setup, _n_workers: setup)
    for backend in (CudaBackend(), ReferenceBackend()):
        codec = Codec(tiny_artefact, Windowing(32, 8), backend)
        monkeypatch.setattr(codec, "canary", lambda: b"ab")
        setup: Any = start_workers(codec, Share(2, 1, 1), encode=False)
        assert setup.backend == backend.name
        share = share_out(codec, CodingOptions(threads=4), encode=False, large=True)
        assert share.n_workers == (0 if backend.name == "cuda" else 4)
        assert share.n_lanes == (64 if backend.name == "cuda" else 16)
        assert share_out(codec, CodingOptions(threads=4, workers=0), encode=False, large=True).n_threads == (
            1 if backend.name == "cuda" else 4
        )


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "llmzip.exact.cuda", None)
    backends._load.cache_clear()
    with pytest.raises(BackendError, match=r"expected triton, .*pip install 'llmzip\[gpu\]'"):
        load_backend("cuda")
    backends._load.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["llama", "selective"], indirect=True)
def test_graphs_compute_what_the_reference_does(variant: ModelSpec, make_parameters: Any) -> None:
    """On the device, from two threads at once."""
    parameters = make_parameters(variant)
    reference: Backend = ReferenceBackend()
    expected_model = Transformer(variant, parameters, reference)
    expected = _run(expected_model, expected_model.new_cache(3, 24), n_steps=4)
    model = Transformer(variant, parameters, CudaBackend(capture_graph))
    found: list[list[Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(_run(model, model.new_cache(3, 24), n_steps=4))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert all(_equal(rows, expected) for rows in found)
