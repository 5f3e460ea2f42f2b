from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmzip.archive import decompress, verify_stream
from llmzip.conditioning import network_file
from llmzip.conditioning.chunk_vectors import ChunkVectors
from llmzip.conditioning.conditioning import name_in
from llmzip.conditioning.vectors import Vectors
from llmzip.contents import find_members, read_contents
from llmzip.decoding import read_range
from llmzip.entropy import ParameterDecoder
from llmzip.format import Method, scan
from llmzip.members import Kind
from llmzip.options import DecompressOptions
from llmzip.salvage import salvage_stream

VERSIONS = sorted(path.parent for path in (Path(__file__).parent / "vectors").glob("v*/contents.json"))
ARCHIVES = sorted(path for folder in VERSIONS for path in folder.glob("*.llmz"))


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks beside the archives are found."""
    monkeypatch.setattr(network_file, "NETWORK_FOLDERS", [lambda: VERSIONS])
    monkeypatch.setattr(network_file, "_NETWORKS", {})


def _options(archive: Path) -> DecompressOptions:
    folder = archive.parent
    return DecompressOptions(model=str(folder / "model"), conditioners=str(folder / "entries.cond"), threads=1)


def _content(archive: Path) -> bytes:
    return bytes.fromhex(json.loads((archive.parent / "contents.json").read_text())[archive.stem])


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_archives_of_every_version_are_read(archive: Path) -> None:
    """Whole, by ranges, by test and by salvage."""
    blob, content, options = archive.read_bytes(), _content(archive), _options(archive)
    assert decompress(blob, options) == content
    assert list(verify_stream(io.BytesIO(blob), options)) == []
    for start, stop in ((0, len(content)), (len(content) // 3, 2 * len(content) // 3)):
        assert b"".join(read_range(io.BytesIO(blob), start, stop, options)) == content[start:stop]
    target = io.BytesIO()
    assert salvage_stream(io.BytesIO(blob), target, options) == []
    assert target.getvalue() == content


def test_vectors_have_all_that_the_format_has() -> None:
    """Every archive has its content; every method, an index, several frames and conditioners are among them."""
    for folder in VERSIONS:
        names = json.loads((folder / "contents.json").read_text())
        assert sorted(names) == sorted(path.stem for path in folder.glob("*.llmz"))
    frames = {path.stem: list(scan(io.BytesIO(path.read_bytes()))) for path in ARCHIVES}
    assert {method for found in frames.values() for frame in found for method in frame.methods} == set(Method)
    assert len(frames["index"][0].points) == 3
    assert len(frames["frames"]) == 3
    assert {frame.header.window for name in ("model", "windows") for frame in frames[name]} == {64, 32}
    places = {name: found[0].header.conditioner for name, found in frames.items() if found[0].header.conditioner}
    assert {name: name_in(section) is not None for name, section in places.items()} == {
        "conditioned": False,
        "memory": False,
        "named": True,
        "own": False,
        "predicted": False,
    }


def test_vectors_of_chunks_are_there_under_a_network_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among those that are kept, rows that the network codes and rows that it does not."""
    found: dict[str, set[str]] = {}
    read = ChunkVectors.read_rows

    def recorded(self: ChunkVectors, decoder: ParameterDecoder, text: NDArray[np.int32]) -> Vectors:
        vectors = read(self, decoder, text)
        found.setdefault("predicted" if self.network else "own", set()).update(
            group.hyperprior.name for group in vectors.groups
        )
        return vectors

    monkeypatch.setattr(ChunkVectors, "read_rows", recorded)
    for archive in ARCHIVES:
        if archive.stem in ("own", "predicted"):
            decompress(archive.read_bytes(), _options(archive))
    assert "learned" in found["predicted"]
    assert "learned" not in found["own"]
    assert found["own"]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_members_of_every_version_are_read(folder: Path) -> None:
    """Names, kinds, modes, times and contents."""
    archive = folder / "members.llmz"
    file, content = io.BytesIO(archive.read_bytes()), _content(archive)
    places = find_members(file)
    assert [(p.member.path.decode(), p.member.kind, p.member.mode, p.member.mtime_ns) for p in places] == [
        ("folder", Kind.FOLDER, 0o755, 10**18),
        ("folder/noise", Kind.FILE, 0o600, -1),
        ("folder/link", Kind.LINK, 0o777, 0),
        ("größe", Kind.FILE, 0o4755, 2**61),
    ]
    assert places[2].member.target == b"noise"
    contents = [b"".join(pieces) for _, pieces in read_contents(file, places, _options(archive))]
    assert contents == [b"", content[:64], b"", content[64:]]
