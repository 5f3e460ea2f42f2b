"""The conditioners for a new archive, and those that an archive's header asks for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmzip.conditioner_store import find_by_name, find_file
from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioner_file import ConditionerFile, read_conditioner_file
from llmzip.conditioning.conditioner_set import ConditionerSet, conditioner_id
from llmzip.conditioning.conditioning import Conditioning, Place, Policy, embedded_body, name_in
from llmzip.conditioning.network_file import find_network_of
from llmzip.errors import ConditionerInvalidError, ConfigError, ModelMismatchError

if TYPE_CHECKING:
    from llmzip.codec import Codec
    from llmzip.format import Header
    from llmzip.models.store import StoredModel
    from llmzip.options import CompressOptions, DecompressOptions, MakeTrainer


def conditioned_for(codec: Codec, model: StoredModel, options: CompressOptions) -> Codec:
    """The codec of a new archive: under the conditioners that were asked for, else under the model's codebook.

    Raises:
        ConditionerMissingError: there is no such file.
        ConditionerInvalidError: it is damaged, or for another model.
        ConfigError: there is no such entry, or no room for it in the windows.
    """
    if options.conditioner == Policy.NONE:
        return codec
    if options.chunk_trainer is not None:
        return _with_chunk_vectors(codec, options.chunk_trainer)
    if options.conditioners is not None:
        file = find_file(options.conditioners)
        place = Place.EMBEDDED if options.embed else Place.NAMED
    elif model.codebook is not None:
        file, place = read_conditioner_file(model.codebook), Place.CODEBOOK
    elif options.conditioner == Policy.AUTO:
        return codec
    else:
        raise ConfigError(
            f"conditioner {options.conditioner}: expected a model with a codebook, or conditioners by -D, found neither"
        )
    _check_model(file, codec)
    found = file.unpack_set(codec.artefact.spec)
    if file.chooser:
        own = found.basis.n_directions if found.basis is not None and found.basis.own else 0
        file.chooser.check(codec.artefact.spec.width, found.n_choices, own)
    policy = _policy(options.conditioner, file.names, found.n_entries)
    return codec.with_conditioning(Conditioning(found, file.body, file.id, place, file.chooser, policy))


def _with_chunk_vectors(codec: Codec, make: MakeTrainer) -> Codec:
    """The codec of an archive whose chunks bring vectors of their own."""
    artefact = codec.artefact
    network = find_network_of(artefact.id)
    if network is not None:
        network.check(artefact.id, artefact.spec.n_layers + 1, artefact.spec.width)
    found = ConditionerSet(chunk_vectors=ChunkVectors.of(artefact.spec, network))
    body = found.pack(artefact.spec)
    trainer = make(artefact, codec.windowing, network)
    conditioning = Conditioning(found, body, conditioner_id(artefact.id, body), Place.EMBEDDED, trainer=trainer)
    return codec.with_conditioning(conditioning)


def conditioned_by(codec: Codec, header: Header, codebook: ConditionerFile | None, options: DecompressOptions) -> Codec:
    """The codec that a header asks for.

    Args:
        codec: of its model and windows.
        header: of a frame.
        codebook: what belongs to the model, where the header asks for that.
        options: what the user named.

    Raises:
        ConditionerMissingError: there are no such conditioners.
        ConditionerInvalidError: they are for another model.
        ModelMismatchError: the user named others.
        FormatError: what the header holds is none.
    """
    if codebook is not None:
        return _reader(codec, codebook.body, Place.CODEBOOK)
    if not header.conditioner:
        return codec
    name = name_in(header.conditioner)
    if name is None:
        return _reader(codec, embedded_body(header.conditioner), Place.EMBEDDED)
    if options.conditioners is None:
        return _reader(codec, find_by_name(name, codec.artefact.id).body, Place.NAMED)
    file = find_file(options.conditioners)
    if not file.id.startswith(name):
        found = file.id[: len(name)].hex()
        raise ModelMismatchError(f"archive needs conditioners {name.hex()}, found {found} ({options.conditioners})")
    _check_model(file, codec)
    return _reader(codec, file.body, Place.NAMED)


@functools.lru_cache(maxsize=4)
def _reader(codec: Codec, body: bytes, place: Place) -> Codec:
    """The codec that reads under a set; kept, for an archive's frames may all have the same."""
    file = ConditionerFile(codec.artefact.id, body)
    spec = codec.artefact.spec
    found = ConditionerSet.unpack(body, spec) if place is Place.EMBEDDED else file.unpack_set(spec)
    return codec.with_conditioning(Conditioning(found, body, file.id, place))


def _check_model(file: ConditionerFile, codec: Codec) -> None:
    if file.artefact_id != codec.artefact.id:
        raise ConditionerInvalidError(
            f"conditioners: expected those of model {codec.artefact.id[:10]}, found {file.artefact_id[:10]}'s"
        )


def _policy(conditioner: str, names: Sequence[str], n_entries: int) -> Policy | int:
    """What the user asked for: a policy, or the number or name of an entry."""
    if conditioner in list(Policy):
        return Policy(conditioner)
    if conditioner in names:
        return 1 + names.index(conditioner)
    if conditioner.isascii() and conditioner.isdigit() and 1 <= int(conditioner) <= n_entries:
        return int(conditioner)
    known = ", ".join([*Policy, *names]) + f" or 1 to {n_entries}"
    raise ConfigError(f"conditioner: expected {known}, found {conditioner!r}")
