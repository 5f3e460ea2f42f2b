"""Makes the archives of `v1`, which every later version reads: `python tests/vectors/make.py`.

They were made once, when the format's version 1 was; files that are there are left as they are. A model of a few
thousand parameters lies beside them, with conditioners for it, and `contents.json` has what they hold, in hexadecimal.
"""

from __future__ import annotations

import io
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from llmzip.conditioning import hyperpriors
from llmzip.conditioning.conditioner_file import ConditionerFile
from llmzip.conditioning.conditioner_set import Basis, Choice, ConditionerSet, Text
from llmzip.conditioning.conditioning import ChunkRows, Conditioning
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import NETWORK_FILE, NETWORK_FOLDERS, find_network_of, pack_network
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.encoding import StreamCompressor
from llmzip.exact.spec import ModelSpec, Ngrams, Selection
from llmzip.format import FrameWriter, Header, Method, Sections
from llmzip.general import compress_general, compress_zstd
from llmzip.members import Kind, Member, pack_members
from llmzip.models.artefact import Artefact, load_artefact
from llmzip.models.card import Card
from llmzip.models.convert.float_model import FloatModel, tensor_shape
from llmzip.models.quantise import build_artefact
from llmzip.options import CompressOptions
from llmzip.tokens.tokenizer import ByteTokenizer

FOLDER = Path(__file__).parent / "v1"
TEXT = "Old archives stay readable. Alte Archive bleiben lesbar. 古いアーカイブも読める。\n".encode()
LETTERS = b"old archives stay readable and every later version opens them "
SPEC = ModelSpec(
    family="llmzip_selective",
    vocab_size=257,
    width=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    head_width=8,
    ff_width=24,
    max_positions=64,
    bos_id=0,
    rotary_width=8,
    mlp="plain",
    activation="relu2",
    selection=Selection(2048, (8, 0)),
    ngrams=Ngrams(2, 32),
    tied_head=False,
)


def make_model(folder: Path) -> None:
    """A model of random weights whose tokens are single bytes; all that it knows is that small letters are frequent."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    parts = ("attention_norm", "q", "k", "v", "o", "mlp_norm", "up", "down")
    names = ["embed", "head", "final_norm", *(f"layers.{i}.{part}" for i in range(SPEC.n_layers) for part in parts)]
    names += [f"ngram{i + 2}" for i in range(2)]
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": 0.2 * rng.standard_normal(tensor_shape(SPEC, f"{name}.weight"), dtype=np.float32)
        for name in names
    }
    alphabet = {"<end>": 0} | {character: i for i, character in enumerate(sorted(ByteLevel.alphabet()), start=1)}
    tokenizer = Tokenizer(BPE(alphabet, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tensors["final_norm.weight"][:] = 1
    tensors["embed.weight"][:, 0], tensors["head.weight"][:, 0] = 2, -1
    tensors["head.weight"][[alphabet[letter] for letter in "abcdefghijklmnopqrstuvwxyzĠ"], 0] = 1
    model = FloatModel(SPEC, tensors, tokenizer.to_str(), "none", "made by make.py")
    folder.mkdir(parents=True)
    Card(build_artefact(model, folder), "vectors", SPEC.family, "none", "made by make.py", 1, 1).write(folder)


def conditioners(artefact: Artefact) -> dict[str, ConditionerSet]:
    """Sets for the model, by name: a string and vectors under all hyperpriors that need no network; and a basis."""
    rng = np.random.default_rng(1)
    string = Text(ByteTokenizer(artefact.tokenizer_json, artefact.vocabulary).encode(b"old archives"))
    kinds: tuple[hyperpriors.Kind, ...] = ("gaussian", "empirical", "lloyd-max", "gaussian")
    rows = [0.1 * rng.standard_normal(n * SPEC.width, dtype=np.float32) for n in (2, 1, 1, 1)]
    groups = [hyperpriors.quantise(row, kind, n_levels=7) for row, kind in zip(rows, kinds, strict=True)]
    shape = Shape(0, SPEC.n_layers + 1, SPEC.width)
    prompt = Vectors(Shape(2, *shape[1:]), tuple(groups))
    shifts = Vectors(shape, tuple(groups[1:]))
    directions = [0.1 * rng.standard_normal(2 * SPEC.width, dtype=np.float32) for _ in range(shape.n_shifts)]
    vectors = Vectors(shape, tuple(hyperpriors.quantise(row, "gaussian", n_levels=15) for row in directions))
    basis = Basis(vectors, np.array([80, 60]), 7, np.array([[1, -2]]), own=True)
    return {"entries": ConditionerSet((string, prompt, shifts)), "memory": ConditionerSet(basis=basis)}


def _frame(chunks: list[tuple[Method, bytes, bytes]], sections: Sections | None = None) -> bytes:
    target = io.BytesIO()
    writer = FrameWriter(target, Header(), sections or Sections())
    for method, raw, payload in chunks:
        writer.write_chunk(method, raw, payload)
    writer.finish()
    return target.getvalue()


def _modelled(text: bytes, model: Path, **chosen: Any) -> bytes:
    """An archive whose chunks are all the model's, by a stand-in for its choice."""
    import llmzip.methods

    usual = llmzip.methods.plan
    llmzip.methods.plan = lambda chunks, payloads, _apply=map: [  # type: ignore[assignment]
        llmzip.methods.Part(Method.MODEL, raw, payload or b"") for raw, payload in zip(chunks, payloads, strict=True)
    ]
    target = io.BytesIO()
    options = replace(CompressOptions(model=str(model), threads=1), **chosen)
    try:
        with StreamCompressor(target, options) as compressor:
            compressor.write(text)
            compressor.finish()
    finally:
        llmzip.methods.plan = usual
    return target.getvalue()


def _conditioned(model: Path, file: str, choices: list[Choice], *, embed: bool) -> tuple[bytes, bytes]:
    """An archive whose chunks have these choices in their turn, and its content."""
    text, turns = LETTERS * len(choices), ([choice] for choice in itertools.cycle(choices))
    sizes = {"window": 32, "overlap": 8, "chunk_size": len(LETTERS)}
    with mock.patch.object(Conditioning, "candidates", side_effect=turns):
        return _modelled(text, model, conditioners=str(model.parent / file), embed=embed, **sizes), text


def network(artefact: Artefact) -> HyperpriorNetwork:
    """A network that text moves, and a latent too."""
    rng = np.random.default_rng(2)
    P, D, k, V = SPEC.n_layers + 1, SPEC.width, 2, SPEC.vocab_size
    slopes = rng.integers(-40, 40, (2, P, D, k))
    return HyperpriorNetwork(
        artefact.id,
        mean_shift=3,
        step_codes=rng.integers(150, 156, P),
        scales=rng.integers(50, 80, (P, D)),
        means=rng.integers(-8, 8, (P, D)),
        scale_slopes=slopes[0],
        mean_slopes=slopes[1],
        latent_weights=rng.integers(1, 65536, (P, k, 5)),
        text_shift=1,
        text_weights=rng.integers(-20, 20, (V, k)),
    )


def _with_vectors(model: Path, text: bytes, network: HyperpriorNetwork | None) -> bytes:
    """An archive whose chunks bring vectors, the last of them none, for it is one window."""
    rng = np.random.default_rng(3)
    shape = (SPEC.n_layers + 1, SPEC.width)

    def trainer(_tokens: NDArray[np.int32]) -> ChunkRows:
        return ChunkRows(rng.normal(0, 0.1, shape).astype(np.float32), [0.05] * shape[0])

    sizes = {"window": 32, "overlap": 8, "chunk_size": 2 * len(LETTERS) + 40}
    with (
        mock.patch.object(Conditioning, "candidates", side_effect=lambda tokens, _: [Choice()] * (len(tokens) <= 32)),
        mock.patch("llmzip.conditioners.find_network_of", return_value=network),
    ):
        return _modelled(text, model, chunk_trainer=lambda *_: trainer, **sizes)


def archives(model: Path) -> dict[str, tuple[bytes, bytes]]:
    """Each archive and its content, by name."""
    rng = random.Random(0)
    noise = rng.randbytes(64)
    many = [rng.randbytes(rng.randrange(1, 9)) for _ in range(140)]
    words, table, runs = TEXT * 3, b"".join(i.to_bytes(4, "little") for i in range(200)), bytes(500)
    general = [(Method.GENERAL, raw, compress_general(raw)) for raw in (words, table)]
    zstd = (Method.GENERAL, runs, compress_zstd(runs))
    stored = (Method.STORED, noise, noise)
    members = [
        Member(b"folder", Kind.FOLDER, 0o755, 10**18),
        Member(b"folder/noise", Kind.FILE, 0o600, -1, len(noise)),
        Member(b"folder/link", Kind.LINK, 0o777, 0, target=b"noise"),
        Member("größe".encode(), Kind.FILE, 0o4755, 2**61, len(words)),
    ]
    files = _frame([stored, general[0]], Sections(pack_members(members)))
    entries, own = [Choice(number) for number in range(4)], [Choice(0), Choice(1), Choice(2, (3, -7))]
    text = LETTERS * 6
    return {
        "own": (_with_vectors(model, text, None), text),
        "predicted": (_with_vectors(model, text, find_network_of(load_artefact(model).id)), text),
        "empty": (_frame([]), b""),
        "stored": (_frame([stored]), noise),
        "general": (_frame([*general, zstd]), words + table + runs),
        "index": (_frame([(Method.STORED, raw, raw) for raw in many]), b"".join(many)),
        "frames": (_frame([stored]) + _frame([zstd, stored]) + _frame([]), noise + runs + noise),
        "members": (files, noise + words),
        "model": (_modelled(LETTERS, model), LETTERS),
        "windows": (_modelled(LETTERS * 3, model, window=32, overlap=8, chunk_size=120), LETTERS * 3),
        "conditioned": _conditioned(model, "entries.cond", entries, embed=True),
        "named": _conditioned(model, "entries.cond", entries, embed=False),
        "memory": _conditioned(model, "memory.cond", own, embed=True),
    }


def main() -> None:
    """Make what is not there."""
    model = FOLDER / "model"
    if not model.exists():
        make_model(model)
    artefact = load_artefact(model)
    for name, found in conditioners(artefact).items():
        path = FOLDER / f"{name}.cond"
        if not path.exists():
            path.write_bytes(ConditionerFile(artefact.id, found.pack(SPEC), {"made by": "make.py"}).pack())
    network_path = FOLDER / NETWORK_FILE
    if not network_path.exists():
        network_path.write_bytes(pack_network(network(artefact)))
    NETWORK_FOLDERS.append(lambda: (FOLDER,))
    contents_file = FOLDER / "contents.json"
    contents = json.loads(contents_file.read_text()) if contents_file.exists() else {}
    for name, (archive, content) in archives(model).items():
        path = FOLDER / f"{name}.llmz"
        if not path.exists():
            path.write_bytes(archive)
            contents[name] = content.hex()
    contents_file.write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
