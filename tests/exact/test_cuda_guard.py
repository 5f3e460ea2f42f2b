# ruff: noqa: TID253
from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from llmzip.cli import main
from llmzip.codec import Codec
from llmzip.errors import DeviceMemoryError
from llmzip.exact.cuda import CudaBackend
from llmzip.exact.cuda_steps import Run
from llmzip.exact.spec import ModelSpec
from llmzip.exact.transformer import Segment, Transformer
from llmzip.models.artefact import Artefact
from llmzip.windows import Windowing

_FULL = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB"


@pytest.mark.parametrize(
    ("error", "wanted"),
    [(torch.cuda.OutOfMemoryError(_FULL), "20.00 MiB"), (RuntimeError("CUDA error: out of memory"), "something")],
    ids=["torch", "driver"],
)
@pytest.mark.parametrize("place", ["new_store", "steer", "run", "logits", "members", "load"])
def test_a_full_gpu_says_what_to_lower(
    place: str, error: RuntimeError, wanted: str, tiny_artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asked for the room; other errors stay what they are."""

    def full(*_args: Any, **_options: Any) -> None:
        raise error

    backend = CudaBackend()
    codec = Codec(tiny_artefact, Windowing(32, 8), backend)
    cache, spec = codec.transformer.new_cache(1, 32), tiny_artefact.spec
    names = {
        "new_store": "llmzip.exact.cuda_cache.new_store",
        "steer": "torch.zeros",
        "run": "llmzip.exact.cuda_model.CudaModel.__call__",
        "logits": "llmzip.exact.cuda.linear.linear",
        "members": "llmzip.exact.cuda.output.member_frequencies",
        "load": "llmzip.exact.cuda.linear.load_matrix",
    }
    calls: dict[str, Callable[[], object]] = {
        "new_store": lambda: codec.transformer.new_cache(1, 32),
        "steer": lambda: cache.steer(0, np.ones((spec.n_layers + 1, spec.width), np.float32)),
        "run": lambda: codec.transformer.hidden(cache, [Segment(0, 0, np.zeros(1, np.int32))]),
        "logits": lambda: codec.predict(np.zeros((1, spec.width), np.float32)),
        "members": lambda: backend.member_frequencies(np.ones((1, 4), np.int32), np.zeros(1, np.int32), 2),
        "load": lambda: backend.load(tiny_artefact.parameters.matrices["embed"]),
    }
    monkeypatch.setattr(names[place], full)
    expected = (
        f"expected room for {wanted} more in the GPU's memory, found it full; lower --lanes, or take --device cpu"
    )
    with pytest.raises(DeviceMemoryError, match=re.escape(expected)):
        calls[place]()
    error = ValueError("another one")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="another one"):
        calls[place]()


@pytest.mark.usefixtures("tiny_model")
def test_a_full_gpu_ends_a_command_in_one_line(
    sample_text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an exit code of its own, and without an archive."""

    def full(*_args: Any) -> None:
        raise torch.cuda.OutOfMemoryError(_FULL)

    (tmp_path / "text").write_bytes(sample_text[:200])
    monkeypatch.setattr("llmzip.exact.cuda_cache.new_store", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        sys, "argv", ["llmzip", "compress", "--model", "tiny", "--device", "cuda", str(tmp_path / "text")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 42
    assert capsys.readouterr().err.splitlines() == [
        "llmzip: cuda: expected room for 20.00 MiB more in the GPU's memory, found it full; lower --lanes, or take "
        "--device cpu"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize("variant", ["llama"], indirect=True)
def test_lanes_are_not_steered_while_another_thread_captures(variant: ModelSpec, make_parameters: Any) -> None:
    """What a steered lane allocates waits until the capture is there."""
    steered = threading.Event()

    def steer() -> None:
        backend.new_cache(variant, 1, 16).steer(0, np.ones((variant.n_layers + 1, variant.width), np.float32))
        other.steer(0, np.ones((variant.n_layers + 1, variant.width), np.float32))
        steered.set()

    def capture(run: Run) -> Run:
        thread.start()
        assert not steered.wait(0.3)
        return run

    backend = CudaBackend(capture)
    model = Transformer(variant, make_parameters(variant), backend)
    cache, other, lane = model.new_cache(1, 16), model.new_cache(1, 16), np.zeros(1, np.int32)
    thread = threading.Thread(target=steer)
    for _ in range(2):
        model.step(cache, lane, cache.lengths[lane], lane)
    thread.join(60)
    assert steered.is_set()
