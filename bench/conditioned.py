"""A text coded under a conditioner, decoded and compared; and conditioners trained on that very text.

What is coded is under the set that a reader gets of its packed bytes, so these bytes are all the side information
that there is.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.coding import Coding
from bench.timing import seconds_of
from llmzip.codec import Codec
from llmzip.conditioning.conditioner_set import ConditionerSet, Text
from llmzip.conditioning.conditioning import Conditioning
from llmzip.conditioning.hyperpriors import Kind, quantise
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.defaults import DEFAULT_LANES
from llmzip.models.artefact import Artefact

if TYPE_CHECKING:
    from llmzip_training.steering import SteeringConfig, Trained

Floats = NDArray[np.float32]

# Measurements in a training run, of which the best one is taken.
_N_MEASURED = 4
_WARM_UP_BYTES = 64


class Coded(NamedTuple):
    """What a text came to.

    Attributes:
        n_raw: its bytes.
        payload_bits: of all chunks.
        side_bits: of the packed conditioner; 0 without one.
        encode_seconds: from tokens to payloads.
        decode_seconds: and back to bytes.
    """

    n_raw: int
    payload_bits: int
    side_bits: int
    encode_seconds: float
    decode_seconds: float

    @property
    def total_bits(self) -> int:
        """Payloads and conditioner."""
        return self.payload_bits + self.side_bits

    @property
    def ratio_without_side(self) -> float:
        """Bits of the payloads for each bit of the text."""
        return self.payload_bits / (8 * self.n_raw)

    @property
    def ratio(self) -> float:
        """Bits of everything for each bit of the text."""
        return self.total_bits / (8 * self.n_raw)


class ConditionedText:
    """A text in chunks, to be coded under one conditioner after another.

    Args:
        codec: the model and its windows.
        raw: the text.
        chunk_size: bytes in each chunk but the last.
        n_threads: for both ways.
    """

    def __init__(self, codec: Codec, raw: bytes, chunk_size: int, n_threads: int) -> None:
        self._codec, self._n_raw, self._n_threads = codec, len(raw), n_threads
        self._chunks = pieces(raw, chunk_size)
        # What the first use of a model compiles, is compiled here.
        Coding.of_bytes(codec, [raw[:_WARM_UP_BYTES]], 1, n_threads).decode()

    def code(self, entry: Text | Vectors | None = None) -> Coded:
        """Code all chunks, each under `entry`, decode them and compare.

        Raises:
            ExactnessError: other bytes came back.
            ConfigError: the conditioner leaves no room in the windows.
            FormatError: no archive may hold such a conditioner.
        """
        codec, side_bits = self._codec, 0
        if entry is not None:
            spec = codec.artefact.spec
            body = ConditionerSet((entry,)).pack(spec)
            codec = codec.with_conditioning(Conditioning(ConditionerSet.unpack(body, spec), body, policy=1))
            side_bits = 8 * len(body)
        coding = Coding.of_bytes(codec, self._chunks, DEFAULT_LANES, self._n_threads)
        decode_seconds = seconds_of(coding.decode)
        return Coded(self._n_raw, coding.n_bits, side_bits, seconds_of(coding.encode), decode_seconds)

    def text_entry(self, text: str) -> Text:
        """A fixed string as an entry of a set."""
        return Text(self._codec.tokenise([text.encode()])[0])


class TextTrainer:
    """Trains conditioners on a text, for a frozen float model of the same weights.

    Args:
        artefact: of the model.
        raw: the text.
        n_threads: of torch, for the whole process.
    """

    def __init__(self, artefact: Artefact, raw: bytes, n_threads: int) -> None:
        import torch

        from llmzip_training.frozen import load_frozen
        from llmzip_training.streams import encode_stream

        torch.set_num_threads(n_threads)
        self._artefact = artefact
        self._model = load_frozen(artefact)
        self._text = encode_stream([raw], artefact)

    def train(self, config: SteeringConfig) -> Trained:
        """The best conditioner of a run, its windows cut to what model and text allow."""
        from llmzip_training.steering import SteeringTrainer, fitted

        every = -(-config.schedule.steps // _N_MEASURED)
        config = replace(config, schedule=replace(config.schedule, measure_every=every, log_every=every))
        config = fitted(config, self._text, self._model)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            trainer = SteeringTrainer(self._model, self._artefact.id, config, self._text, Path(folder))
            trainer.train()
        return trainer.result()


def pieces(raw: bytes, size: int) -> list[bytes]:
    """Bytes cut at equal distances, wherever that is; a chunk of an archive would rather end with a line.

    >>> pieces(b"abcde", 2)
    [b'ab', b'cd', b'e']
    """
    return [raw[first : first + size] for first in range(0, len(raw), size)]


def embedding_deviation(artefact: Artefact) -> float:
    """Standard deviation of the numbers in a model's embedding."""
    embed = artefact.parameters.matrices["embed"]
    return float((embed.q * embed.scale[:, None]).std())


def random_prompt(n_rows: int, width: int, deviation: float, seed: int = 0) -> Floats:
    """Numbers of N(0, deviation²), float32 `[n_rows, width]`."""
    prompt: Floats = np.random.default_rng(seed).normal(0, deviation, (n_rows, width)).astype(np.float32)
    return prompt


def with_levels(prefix: Floats, shifts: Floats, kind: Kind, n_levels: int) -> Vectors:
    """Rows of which each group, the prefix and every shift, has so many levels.

    Args:
        prefix: `[n, D]`.
        shifts: `[L + 1, D]`, or no rows.
        kind: the hyperprior.
        n_levels: at most; the hyperprior chooses the step that suits them.
    """
    groups = tuple(quantise(group, kind, n_levels=n_levels) for group in _groups(prefix, shifts))
    return Vectors(Shape(len(prefix), len(shifts), prefix.shape[1]), groups)


def groups_of(trained: Trained) -> list[Floats]:
    """The coordinates of a trained conditioner, group by group."""
    return _groups(trained.prefix, trained.shifts)


def _groups(prefix: Floats, shifts: Floats) -> list[Floats]:
    return [prefix.reshape(-1)] * (len(prefix) > 0) + list(shifts)
