from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmzip.cli import main as llmzip
from llmzip.conditioning.conditioner_file import read_conditioner_file
from llmzip.conditioning.conditioner_set import ConditionerSet, Text
from llmzip.conditioning.learned import Learned
from llmzip.conditioning.network import HyperpriorNetwork
from llmzip.conditioning.network_file import pack_network, register_network
from llmzip.conditioning.vectors import Shape, Vectors
from llmzip.models.artefact import load_artefact
from llmzip.models.store import StoredModel, find_model
from llmzip_training.metrics import read_metrics

Run = Callable[..., int]
SHORT = ("--model", "tiny", "--threads", 1, "--context", 32, "--rate", 0.02)


@pytest.fixture
def run(run: Run, tiny_model: StoredModel) -> Run:
    """A command line of `llmzip train` beside the model `tiny`; its exit code."""
    assert tiny_model.name == "tiny"
    return lambda *arguments: run(llmzip, "train", *arguments)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of numbers."""
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(400)))
    return path


def _set_in(path: Path) -> ConditionerSet:
    return read_conditioner_file(path).unpack_set(load_artefact(find_model("tiny").path).spec)


def test_conditioner_of_a_text_is_trained(run: Run, text: Path, tmp_path: Path) -> None:
    """The folder holds it, its report and its metrics; the same command then has nothing more to do."""
    command = ("steering", "--text", text, "--out", tmp_path / "out", "--steps", 4, "--prefix", 2, *SHORT)
    assert run(*command) == 0
    (entry,) = _set_in(tmp_path / "out" / "conditioner.cond").entries
    assert isinstance(entry, Vectors)
    assert entry.shape == Shape(n_prefix=2, n_shifts=2, width=256)
    report = (tmp_path / "out" / "report.json").read_bytes()
    assert json.loads(report)["step"] == 4
    assert [line["step"] for line in read_metrics(tmp_path / "out")] == [4, 4]
    assert run(*command) == 0
    assert (tmp_path / "out" / "report.json").read_bytes() == report


def test_length_is_chosen_for_the_text_or_by_seconds(run: Run, text: Path, tmp_path: Path) -> None:
    """A short text gets the fewest steps."""
    assert run("steering", "--text", text, "--out", tmp_path / "a", *SHORT) == 0
    assert json.loads((tmp_path / "a" / "report.json").read_text())["step"] >= 20
    assert run("steering", "--text", text, "--out", tmp_path / "b", "--seconds", 0.1, *SHORT) == 0
    assert json.loads((tmp_path / "b" / "report.json").read_text())["step"] >= 1


def test_paused_run_is_continued(run: Run, text: Path, tmp_path: Path) -> None:
    """There is no conditioner before its end."""
    command = ("steering", "--text", text, "--out", tmp_path / "out", "--steps", 3, *SHORT)
    assert run(*command, "--pause-after", 0) == 0
    assert not (tmp_path / "out" / "conditioner.cond").exists()
    assert run(*command) == 0
    assert (tmp_path / "out" / "conditioner.cond").exists()


def test_shared_conditioner_is_trained_on_shards(run: Run, shards: Path, tmp_path: Path) -> None:
    """And measured on their held-out text."""
    command = ("steering", "--data", shards, "--out", tmp_path / "out", "--steps", 4, "--bytes", 20000, *SHORT)
    assert run(*command) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["measured"] == "held_out"


@pytest.mark.parametrize("kind", ["empirical", "lloyd-max"])
def test_the_hyperprior_is_chosen(kind: str, run: Run, text: Path, tmp_path: Path) -> None:
    """And stands in the file."""
    command = ("steering", "--text", text, "--out", tmp_path / "out", "--steps", 2, "--hyperprior", kind, *SHORT)
    assert run(*command) == 0
    (entry,) = _set_in(tmp_path / "out" / "conditioner.cond").entries
    assert isinstance(entry, Vectors)
    assert {group.hyperprior.name for group in entry.groups} == {kind}


def test_a_learned_hyperprior_is_that_of_its_network(
    run: Run, text: Path, tiny_network: HyperpriorNetwork, tmp_path: Path
) -> None:
    """Of this model and no other; what the report says of the bits is what is written."""
    (tmp_path / "a.net").write_bytes(pack_network(tiny_network))
    options = ("--text", text, "--out", tmp_path / "out", "--steps", 2, "--hyperprior", "learned", *SHORT)
    assert run("steering", *options, "--network", tmp_path / "a.net") == 0
    register_network(tiny_network)
    (entry,) = _set_in(tmp_path / "out" / "conditioner.cond").entries
    assert isinstance(entry, Vectors)
    for part, group in enumerate(entry.groups):
        assert isinstance(group.hyperprior, Learned)
        assert (group.hyperprior.network, group.hyperprior.part) == (tiny_network, part)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["conditioner_bits"] == sum(group.cost().total_bits for group in entry.groups)


def test_networks_that_do_not_fit_are_refused(
    run: Run, text: Path, tiny_network: HyperpriorNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything is trained."""
    other = replace(tiny_network, artefact_id="ab" * 32)
    narrow = replace(
        other,
        scales=other.scales[:, :7],
        means=other.means[:, :7],
        scale_slopes=other.scale_slopes[:, :7],
        mean_slopes=other.mean_slopes[:, :7],
    )
    options = ("--text", text, "--out", tmp_path / "out", "--hyperprior", "learned", *SHORT)
    path = tmp_path / "a.net"
    for network, code, words in (
        (None, 24, f"network {path}: expected a file, found none"),
        (pack_network(other), 25, "network: expected that of model"),
        (pack_network(narrow), 25, "network: expected one for 2 rows of 256, found 2 of 7"),
    ):
        if network is not None:
            path.write_bytes(network)
        assert run("steering", *options, "--network", path) == code
        errors = capsys.readouterr().err
        assert words in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_string_is_a_conditioner(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of its tokens; one that is too long is refused."""
    assert run("string", "def f(x):", "--model", "tiny", "--out", tmp_path / "a.cond") == 0
    (entry,) = _set_in(tmp_path / "a.cond").entries
    assert isinstance(entry, Text)
    assert load_artefact(find_model("tiny").path).vocabulary.decode(entry.tokens) == b"def f(x):"
    assert run("string", "a b" * 200, "--model", "tiny", "--out", tmp_path / "b.cond") == 50
    assert "string: expected 1 to 256 tokens" in capsys.readouterr().err


def test_codebook_is_trained_on_files(run: Run, text: Path, tmp_path: Path) -> None:
    """Its folder holds entries and chooser."""
    sizes = ("--steps", 4, "--entries", 2, "--batch", 4, "--pool", 8, "--chooser-pieces", 8, "--windows", 8)
    files = ("--train", text, "--train", __file__, "--held-out", text, "--out", tmp_path / "out")
    assert run("codebook", *files, *sizes, *SHORT) == 0
    assert _set_in(tmp_path / "out" / "codebook.cond").n_entries == 2
    chooser = read_conditioner_file(tmp_path / "out" / "codebook.cond").chooser
    assert chooser is not None
    chooser.check(256, 3, 0)
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["entries"]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("steering",),
        ("steering", "--text", "a", "--data", "b"),
        ("steering", "--train", "a"),
        ("steering", "--text", "a", "--prefix", 0, "--no-shifts"),
        ("steering", "--text", "a", "--noise", "loud"),
        ("steering", "--text", "a", "--hyperprior", "none"),
        ("steering", "--text", "a", "--hyperprior", "learned"),
        ("steering", "--text", "a", "--hyperprior", "learned", "--network", "b", "--prefix", 1),
        ("steering", "--text", "a", "--network", "b"),
        ("codebook", "--held-out", "a"),
        ("codebook", "--data", "a", "--no-shifts"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_command_lines_that_contradict_themselves_are_refused(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """As ConfigError, before anything is read."""
    assert run(*arguments, "--out", tmp_path / "out", "--model", "tiny") == 50
    assert not (tmp_path / "out").exists()


def test_help_loads_no_torch() -> None:
    """The commands import what they need when they run."""
    code = "import sys, llmzip.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"
