from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmzip.conditioning.conditioner_file import ConditionerFile, read_conditioner_file
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import pack_network
from llmzip.models.artefact import Artefact
from llmzip.models.store import StoredModel
from llmzip_training.codebook import TrainedCodebook
from llmzip_training.conditioner_files import write_codebook, write_conditioner, write_text
from llmzip_training.steering import Trained

Llmzip = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def llmzip(tmp_path: Path, tiny_model: StoredModel) -> Llmzip:
    """The command itself, in a folder with a text and a data directory of its own that has the model `tiny`."""
    home = tmp_path / "home"
    shutil.copytree(tiny_model.path, home / "models" / "tiny")

    def _run(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", "from llmzip.cli import main; main()", *args],
            input=data,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "LLMZIP_HOME": str(home)},
            timeout=240,
            check=False,
        )

    return _run


@pytest.fixture
def shifted(tmp_path: Path, tiny_artefact: Artefact) -> Path:
    """A file of one conditioner."""
    spec = tiny_artefact.spec
    # So weak that the model still wins.
    shifts = np.random.default_rng(0).normal(0, 0.02, (spec.n_layers + 1, spec.width)).astype(np.float32)
    steps = np.full(len(shifts), 0.005, np.float32)
    trained = Trained(np.zeros((0, spec.width), np.float32), shifts, steps, {"names": ["noise"]})
    write_conditioner(trained, tiny_artefact, tmp_path / "noise.cond")
    return tmp_path / "noise.cond"


@pytest.fixture
def text(tmp_path: Path, sample_text: bytes) -> bytes:
    """What the file `text` holds."""
    (tmp_path / "text").write_bytes(sample_text[:3000])
    return sample_text[:3000]


def _one_line(done: subprocess.CompletedProcess[bytes], code: int, words: str) -> None:
    assert (done.returncode, done.stdout) == (code, b""), done
    assert done.stderr.count(b"\n") == 1
    assert words.encode() in done.stderr


def test_a_named_conditioner_is_found_by_file_and_by_folder(llmzip: Llmzip, shifted: Path, text: bytes) -> None:
    """An archive that names it needs it; -D brings it, and so does a copy in the data directory."""
    made = llmzip("compress", "--model", "tiny", "-D", "noise.cond", "--conditioner", "noise", "text")
    assert made.returncode == 0, made.stderr
    _one_line(llmzip("decompress", "-c", "text.llmz"), 24, "pass their file by -D, or copy it into")
    assert llmzip("decompress", "-c", "-D", "noise.cond", "text.llmz").stdout == text
    assert llmzip("test", "-q", "-D", "noise.cond", "text.llmz").returncode == 0
    assert llmzip("cat", "-D", "noise.cond", "--range", "10:20", "text.llmz").stdout == text[10:20]
    folder = shifted.parent / "home" / "conditioners"
    folder.mkdir()
    (folder / "damaged.cond").write_bytes(b"none")
    shutil.copy(shifted, folder / "anything.cond")
    assert llmzip("decompress", "-c", "text.llmz").stdout == text
    assert llmzip("compress", "-c", "--model", "tiny", "-D", "anything", "text").returncode == 0


def test_an_embedded_conditioner_needs_nothing_else(llmzip: Llmzip, shifted: Path, text: bytes) -> None:
    """And info tells its parts, their bits counted."""
    made = llmzip("compress", "--model", "tiny", "-D", "noise.cond", "--conditioner", "1", "--embed", "text")
    assert made.returncode == 0, made.stderr
    n_bytes = len(read_conditioner_file(shifted).body)
    shifted.unlink()
    assert llmzip("decompress", "-c", "text.llmz").stdout == text
    (frame,) = json.loads(llmzip("info", "--json", "text.llmz").stdout)["frames"]
    facts = frame["conditioners"]
    assert (facts["place"], facts["set_bytes"]) == ("embedded", n_bytes)
    parts = facts["set"]["entries"][0]["parts"]
    assert [part["coordinates"] for part in parts] == [256, 256]
    bits = sum(part["metadata_bits"] + part["coordinate_bits"] for part in parts)
    assert bits < 8 * n_bytes < bits + 64
    assert b"shift 0: 256 coordinates, gaussian" in llmzip("info", "text.llmz").stdout


def test_info_names_the_network_of_a_learned_hyperprior(
    llmzip: Llmzip, tiny_artefact: Artefact, tiny_network: HyperpriorNetwork, text: bytes, tmp_path: Path
) -> None:
    """Where it is here, as it must be for archives; else all but the parts is told."""
    shifts = np.random.default_rng(0).normal(0, 0.02, (2, 256)).astype(np.float32)
    trained = Trained(np.zeros((0, 256), np.float32), shifts, np.full(2, 0.005, np.float32), {})
    write_conditioner(trained, tiny_artefact, tmp_path / "a.cond", tiny_network)
    compress = ("compress", "--model", "tiny", "-D", "a.cond", "--conditioner", "1", "--embed", "text")
    _one_line(llmzip(*compress), 24, "conditioners need the hyperprior network")
    assert b"the network of a learned hyperprior" in llmzip("info", "a.cond").stdout
    assert json.loads(llmzip("info", "--json", "a.cond").stdout)["set"] is None
    folder = tmp_path / "home" / "conditioners"
    folder.mkdir()
    (folder / "hyperprior.net").write_bytes(pack_network(tiny_network))
    assert llmzip(*compress).returncode == 0
    line = f"shift 1: 256 coordinates, learned by network {tiny_network.id.hex()}, ".encode()
    assert line in llmzip("info", "a.cond").stdout
    assert line in llmzip("info", "text.llmz").stdout
    assert llmzip("decompress", "-c", "text.llmz").stdout == text


def test_chunks_bring_vectors_that_are_trained_for_them(llmzip: Llmzip, text: bytes, tmp_path: Path) -> None:
    """By the archive alone they come back; there are no other conditioners beside, and info tells of them."""
    (tmp_path / "home" / "models" / "tiny" / "hyperprior.net").unlink(missing_ok=True)
    options = ("compress", "--model", "tiny", "--tune-chunks", "0.1", "--chunk-size", "2K", "--threads", "1", "text")
    made = llmzip(*options)
    assert made.returncode == 0, made.stderr
    assert llmzip("decompress", "-c", "text.llmz").stdout == text
    (frame,) = json.loads(llmzip("info", "--json", "text.llmz").stdout)["frames"]
    assert frame["conditioners"]["place"] == "embedded"
    assert frame["conditioners"]["set"] == {"entries": [], "chunks_bring_vectors": "of any distribution"}
    assert b"chunks bring vectors: of any distribution" in llmzip("info", "text.llmz").stdout
    for other in (("-D", "a.cond"), ("--conditioner", "best"), ("--tune", "1")):
        _one_line(llmzip(*options, "-c", *other), 50, "expected")


@pytest.mark.usefixtures("shifted", "text")
def test_auto_takes_a_conditioner_only_where_it_saves(llmzip: Llmzip) -> None:
    """Noise never does: the archive is that of no conditioner, but for name and choice."""
    none = llmzip("compress", "-c", "--model", "tiny", "--conditioner", "none", "-D", "noise.cond", "text").stdout
    assert none == llmzip("compress", "-c", "--model", "tiny", "text").stdout
    auto = llmzip("compress", "-c", "--model", "tiny", "-D", "noise.cond", "text").stdout
    assert len(none) < len(auto) <= len(none) + 16 + 4


def test_a_codebook_in_the_models_folder_is_used(
    llmzip: Llmzip, tmp_path: Path, tiny_artefact: Artefact, text: bytes
) -> None:
    """Without a word, and the archive says so; without it, or with another one, the archive is refused."""
    spec = tiny_artefact.spec
    none, shifts = np.zeros((0, spec.width), np.float32), np.full((spec.n_layers + 1, spec.width), 0.02, np.float32)
    book = tmp_path / "home" / "models" / "tiny" / "codebook.cond"
    # Estimates that promise a bit a token of the second entry.
    chooser = np.zeros((spec.width + 1, 2), np.float32)
    chooser[-1] = [0, 1]
    steps = np.full((2, len(shifts)), 0.01, np.float32)
    write_codebook(TrainedCodebook([(none, 0 * shifts), (none, shifts)], steps, chooser, {}), tiny_artefact, book)
    plain = llmzip("compress", "-c", "--model", "tiny", "--conditioner", "none", "text").stdout
    assert llmzip("compress", "--model", "tiny", "text").returncode == 0
    archive = (tmp_path / "text.llmz").read_bytes()
    assert archive[5] == 5
    assert archive[8:13] == read_conditioner_file(book).id[:5] != plain[8:13]
    assert b"codebook of the model" in llmzip("info", "text.llmz").stdout
    assert llmzip("decompress", "-c", "text.llmz").stdout == text
    assert llmzip("decompress", "-c", "--model", "tiny", "text.llmz").stdout == text
    assert llmzip("decompress", "-c", data=plain).stdout == text
    kept = read_conditioner_file(book)
    book.unlink()
    _one_line(llmzip("decompress", "-c", "text.llmz"), 21, "archive needs a model with codebook")
    _one_line(llmzip("decompress", "-c", "--model", "tiny", "text.llmz"), 22, "have tiny without it")
    other = ConditionerFile(kept.artefact_id, kept.body[:-4], kept.notes, kept.chooser)
    book.write_bytes(other.pack())
    _one_line(llmzip("decompress", "-c", "text.llmz"), 21, "archive needs a model with codebook")


@pytest.mark.usefixtures("text")
def test_conditioners_that_do_not_fit_are_refused(llmzip: Llmzip, shifted: Path) -> None:
    """By what was expected and found, with an exit code; nothing is written."""
    compress = ("compress", "-c", "--model", "tiny", "text")
    _one_line(llmzip(*compress, "-D", "missing"), 24, "conditioners missing: expected a file")
    _one_line(llmzip(*compress, "-D", "noise.cond", "--conditioner", "wiki"), 50, "auto, best, none, noise or 1 to 1")
    _one_line(llmzip(*compress, "--conditioner", "best"), 50, "expected a model with a codebook, or conditioners by -D")
    _one_line(llmzip(*compress, "--embed"), 50, "embed: expected a file of conditioners")
    _one_line(llmzip("compress", "-c", "-D", "noise.cond", "text"), 25, "expected those of model")
    whole = shifted.read_bytes()
    for spoiled, words in (
        (whole[:-1], "checksum: need 4 bytes, 3 left"),
        (whole[:60] + b"\xff" + whole[61:], "checksum"),
        (b"text", "expected 89 4c 5a 43"),
        (whole + b"\0", "expected"),
    ):
        shifted.write_bytes(spoiled)
        _one_line(llmzip(*compress, "-D", "noise.cond"), 25, words)


@pytest.mark.usefixtures("text")
def test_another_conditioner_is_refused_before_decoding(llmzip: Llmzip, shifted: Path, tiny_artefact: Artefact) -> None:
    """By its name; and one that was forged to have the right name by the canary."""
    llmzip("compress", "--model", "tiny", "-D", "noise.cond", "text")
    tokens = np.array([5, 6, 7], dtype=np.int32)
    write_text(tokens, tiny_artefact, shifted.parent / "other.cond", {})
    _one_line(llmzip("decompress", "-c", "-D", "other.cond", "text.llmz"), 22, "archive needs conditioners")
    archive = bytearray((shifted.parent / "text.llmz").read_bytes())
    name, other = (read_conditioner_file(shifted.parent / f"{which}.cond").id[:8] for which in ("noise", "other"))
    at = archive.index(name)
    archive[at : at + 8] = other
    (shifted.parent / "forged.llmz").write_bytes(_resealed(archive))
    _one_line(llmzip("decompress", "-c", "-D", "other.cond", "forged.llmz"), 22, "canary")


def _resealed(archive: bytearray) -> bytes:
    """An archive whose section's checksum is that of what it now holds."""
    section = bytes(archive[16 : 16 + 2 + 9 + 1])
    archive[28:32] = zlib.crc32(section).to_bytes(4, "little")
    return bytes(archive)
