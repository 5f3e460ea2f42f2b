"""The codec for a new archive, the one that an archive's header asks for, and processes that have the same."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from llmzip.defaults import default_overlap, default_window
from llmzip.errors import ConfigError, ExactnessError, FormatError, ModelMismatchError, ModelNotFoundError
from llmzip.format import Header
from llmzip.format.limits import ARTEFACT_ID_SIZE
from llmzip.options import CompressOptions, DecompressOptions
from llmzip.resources import Share, check_chunk, check_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmzip.codec import Codec
    from llmzip.conditioning.conditioner_file import ConditionerFile
    from llmzip.exact.spec import ModelSpec
    from llmzip.format import ChunkPlace
    from llmzip.models.store import StoredModel
    from llmzip.windows import Windowing
    from llmzip.worker_pool import WorkerPool

# What a backend that needs proof encodes as the CPU does: a few blocks of attention.
PROOF_TOKENS = 200


def check_place(header: Header, place: ChunkPlace, options: DecompressOptions) -> None:
    """Refuse a chunk that takes more memory than there is beside a model: that of its frame, or one that is loaded.

    Raises:
        LimitError: so it does.
    """
    with_model = header.uses_model or _load_codec.cache_info().currsize > 0
    check_chunk(place, options, with_model=with_model)


def header_of(codec: Codec) -> Header:
    """What a frame's header says of the codec."""
    from llmzip.conditioning.conditioning import Place

    conditioning = codec.conditioning
    codebook = conditioning.place is Place.CODEBOOK
    return Header(
        window=codec.windowing.window,
        overlap=codec.windowing.overlap,
        artefact_id=(conditioning.id if codebook else bytes.fromhex(codec.artefact.id))[:ARTEFACT_ID_SIZE],
        canary=codec.canary(),
        codebook=codebook,
        conditioner=conditioning.section,
    )


def codec_of(header: Header, options: DecompressOptions) -> Codec:
    """The codec that a header asks for, its canary checked.

    Raises:
        ModelNotFoundError: there is no such model.
        ConditionerMissingError: there are no such conditioners.
        ModelMismatchError: another model was asked for, or it computes something else here.
        FormatError: windows or conditioners that the model does not allow.
    """
    model, codebook = _model_of(header, options)
    check_model(model.size_bytes, options)
    try:
        codec = _load_codec(model.path, header.window, header.overlap, options.device)
        if header.conditioner or codebook:
            from llmzip.conditioners import conditioned_by

            codec = conditioned_by(codec, header, codebook, options)
    except ConfigError as error:
        raise FormatError(f"header: {error}") from error
    if codec.canary() != header.canary:
        raise ModelMismatchError(
            f"canary: expected {header.canary.hex()} from model {model.name}, found {codec.canary().hex()}; "
            "the archive was damaged, or a machine computed wrongly"
        )
    return codec


def _model_of(header: Header, options: DecompressOptions) -> tuple[StoredModel, ConditionerFile | None]:
    """The model that a header names, and its codebook where that is named too."""
    from llmzip.models.store import find_by_id, find_model

    if header.codebook:
        return _pair_of(header, options)
    model = find_model(options.model) if options.model else find_by_id(header.artefact_id)
    if bytes.fromhex(model.id)[:ARTEFACT_ID_SIZE] != header.artefact_id:
        raise ModelMismatchError(
            f"archive needs model {header.artefact_id.hex()}..., have {model.id[: 2 * ARTEFACT_ID_SIZE]} ({model.name})"
        )
    return model, None


def _pair_of(header: Header, options: DecompressOptions) -> tuple[StoredModel, ConditionerFile]:
    from llmzip.conditioner_store import find_pair
    from llmzip.models.store import find_model

    models = [find_model(options.model)] if options.model else None
    found = find_pair(header.artefact_id, models)
    if found is None and models:
        raise ModelMismatchError(
            f"archive needs a model with codebook {header.artefact_id.hex()}..., have {models[0].name} without it"
        )
    if found is None:
        raise ModelNotFoundError(
            f"archive needs a model with codebook {header.artefact_id.hex()}, found none; "
            "install the llmzip that made it"
        )
    return found


def load_codec(options: CompressOptions) -> Codec:
    """The codec for new archives: the chosen model, windows and conditioners, or the defaults.

    Raises:
        ModelNotFoundError: there is no such model.
        ConditionerMissingError: there are no such conditioners.
        ConditionerInvalidError: they are damaged, or for another model.
        ConfigError: window, overlap or conditioner that the model or the format does not allow.
    """
    from llmzip.conditioners import conditioned_for
    from llmzip.models.store import find_bundled, find_model

    model = find_model(options.model) if options.model else find_bundled()
    check_model(model.size_bytes, options)
    codec = _load_codec(model.path, options.window, options.overlap, options.device)
    return conditioned_for(codec, model, options)


@functools.lru_cache(maxsize=4)
def _load_codec(folder: Path, window: int | None, overlap: int | None, device: str) -> Codec:
    loaded = _load_any_codec(folder, device)
    return loaded.with_windowing(choose_windowing(loaded.artefact.spec, window, overlap))


@functools.lru_cache(maxsize=2)
def _load_any_codec(folder: Path, device: str) -> Codec:
    """A codec of a model; an archive may ask for it with many windows."""
    from llmzip.codec import Codec
    from llmzip.exact.backend import load_backend
    from llmzip.models.artefact import load_artefact

    artefact = load_artefact(folder)
    backend = load_backend(device=device)
    codec = Codec(artefact, choose_windowing(artefact.spec, None, None), backend)
    if backend.needs_proof:
        expect_equal(codec, Codec(artefact, codec.windowing, load_backend("cpu")))
    return codec


def expect_equal(codec: Codec, other: Codec) -> None:
    """Compare what two backends make of tokens in no plain order.

    Windows of several lengths are encoded together, and one is steered and continued step by step.

    Raises:
        ExactnessError: a payload or a weight differs.
    """
    import numpy as np

    n_tokens = min(PROOF_TOKENS, codec.windowing.window)
    tokens = (np.arange(n_tokens, dtype=np.int64) ** 2 * 7919 % codec.artefact.spec.vocab_size).astype(np.int32)
    chunks = [tokens, tokens[: n_tokens // 3], tokens[1:2]]
    equal = list(codec.encode(chunks, map)) == list(other.encode(chunks, map))
    if not equal or _steered_weights(codec, tokens) != _steered_weights(other, tokens):
        names = f"{codec.backend.name} and {other.backend.name}"
        raise ExactnessError(f"backends {names}: expected the same payloads, found others; --device cpu does without")


def _steered_weights(codec: Codec, tokens: NDArray[np.int32]) -> list[bytes]:
    """The weights behind a prefix and under shifts, for steps enough that some are captured and repeated."""
    import numpy as np

    from llmzip.exact.transformer import Segment

    spec, transformer = codec.artefact.spec, codec.transformer
    n_prefix, capacity = min(2, len(tokens) - 1), min(7, len(tokens))
    rows = np.arange((n_prefix + spec.n_layers + 1) * spec.width).reshape(-1, spec.width) % 251 - 125
    prefix, shifts = np.split((rows / 64).astype(np.float32), [n_prefix])
    lane = np.zeros(1, np.int32)
    cache = transformer.new_cache(1, capacity)
    cache.steer(0, shifts)
    given = np.arange(spec.vocab_size, spec.vocab_size + n_prefix, dtype=np.int32)
    found = [transformer.hidden(cache, [Segment(0, 0, np.concatenate([tokens[:1], given]))], prefix)]
    for position in range(n_prefix + 1, capacity):
        found.append(transformer.step(cache, lane, lane + np.int32(position), tokens[position : position + 1], prefix))
    return [np.asarray(codec.predict(hidden)[0]).tobytes() for hidden in found]


def start_workers(codec: Codec, share: Share, *, encode: bool) -> WorkerPool | None:
    """Processes with the same codec; None where there are to be none.

    Args:
        codec: what codes.
        share: how many processes, and what each of them has.
        encode: make payloads; else chunks.
    """
    if share.n_workers == 0:
        return None
    from llmzip.worker import Setup
    from llmzip.worker_pool import WorkerPool

    conditioning = codec.conditioning
    setup = Setup(
        encode=encode,
        folder=str(codec.artefact.folder),
        artefact_id=codec.artefact.id,
        canary=codec.canary().hex(),
        window=codec.windowing.window,
        overlap=codec.windowing.overlap,
        n_threads=share.n_threads,
        n_lanes=share.n_lanes,
        conditioners=conditioning.body.hex(),
        chooser=conditioning.chooser.pack().hex() if conditioning.chooser else "",
        policy=conditioning.policy,
        backend=codec.backend.name,
    )
    return WorkerPool(setup, share.n_workers)


def choose_windowing(spec: ModelSpec, window: int | None, overlap: int | None) -> Windowing:
    """Windows as asked for; what is None is as new archives of this model have it.

    Raises:
        ConfigError: the model or the format does not allow them.
    """
    from llmzip.windows import Windowing

    limit = spec.max_positions
    if window is None:
        window = default_window(spec)
    if window > limit:
        raise ConfigError(f"window: expected at most {limit} tokens for this model, found {window}")
    if overlap is None:
        overlap = default_overlap(spec, window)
    try:
        Header(window=window, overlap=overlap, artefact_id=b"\xff" * ARTEFACT_ID_SIZE)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Windowing(window, overlap)
