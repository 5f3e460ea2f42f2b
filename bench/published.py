"""What was published of steering vectors and their hyperpriors under a language model: the figures beside ours.

Nothing here is measured by llmzip. Each table has one of what differs, without which its figures compare nothing.

Source: the tables of github.com/julmaty/LLM-compressor, its encoding, steering and quantisation experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Of the steering table: 50,000 bytes of eight bits.
N_INPUT_BITS = 400_000
# Coordinates of the table of hyperpriors: a prompt of 200 rows of 512.
N_COORDINATES = 102_400
N_LEVELS = 256
# Distance of the Gaussian levels, [-5, 5] in 256 parts, for numbers of N(0, 1).
GAUSSIAN_STEP = 10 / 256
PUBLISHED_STRING = "This is Wikipedia html"


class Published(NamedTuple):
    """One run of Pythia-70m on a text.

    Attributes:
        name: of the run.
        bits: of the text; none of the conditioner's are in it.
    """

    name: str
    bits: int

    @property
    def ratio(self) -> float:
        """Bits for each bit of the text."""
        return self.bits / N_INPUT_BITS


class PublishedPrior(NamedTuple):
    """One hyperprior on numbers of N(0, 1).

    Attributes:
        name: of the hyperprior.
        metadata_bits: of levels and distribution, 32 for each number.
        coordinate_bits: of all coordinates.
        entropy: bits a coordinate.
        mse: mean squared error.
    """

    name: str
    metadata_bits: int
    coordinate_bits: int
    entropy: float
    mse: float

    @property
    def total_bits(self) -> int:
        """Coordinates and metadata."""
        return self.metadata_bits + self.coordinate_bits

    @property
    def ratio(self) -> float:
        """Of all bits to 32 a coordinate."""
        return self.total_bits / (32 * N_COORDINATES)


WHOLE = Published("no chunks", 60_471)
CHUNKS = Published("chunks", 66_303)
STRING = Published("fixed string", 66_406)
RANDOM = Published("random prompt, N(0, 1)", 68_138)
TRAINED_SHORT = Published("trained prompt, 100 epochs", 62_589)
TRAINED_LONG = Published("trained prompt, 500 epochs", 54_256)
ROUNDED_LONG = {
    "gaussian": Published("500 epochs, Gaussian", 54_279),
    "empirical": Published("500 epochs, empirical", 54_874),
    "lloyd-max": Published("500 epochs, Lloyd-Max", 53_853),
}
PRIORS = {
    "gaussian": PublishedPrior("Gaussian, sigma 1", 192, 690_204, 6.7252, 5.107e-4),
    "empirical": PublishedPrior("empirical", 8_320, 796_276, 7.7136, 4.489e-3),
    "lloyd-max": PublishedPrior("Lloyd-Max", 16_480, 787_205, 7.6872, 4.065e-5),
}

STEERING_DIFFERENCES = (
    ("model", "Pythia-70m", "--model, in exact integers"),
    ("tokeniser", "Pythia's, on the text read as latin-1", "the model's own, on bytes"),
    ("window", "the model's, moved by one for every token", "the archiver's windows, which overlap"),
    (
        "first token and length of a chunk",
        "given to the decoder, not counted",
        "the first token is coded; lengths are the container's, not counted",
    ),
    (
        "conditioner's own bits",
        "690,396 to 804,596 of a prompt, not counted",
        "counted: the packed set, as an archive holds it",
    ),
    ("prompt", "200 rows of 512", "--rows of the model's width"),
    (
        "training",
        "100 and 500 passes, a chunk a step, Adam 5e-4, for the text's bits",
        "--steps of --batch windows; for the text's bits (weight 0) or for all bits (1)",
    ),
    ("quantisation", "after training, 256 levels", "the same, and by the steps that training chose"),
    ("check", "tokens compared; two models did not decode", "every payload decoded, its bytes compared"),
)
HYPERPRIOR_DIFFERENCES = (
    (
        "index of a Gaussian level",
        "rounded where levels are half a step off: MSE of step²/3",
        "the nearest level: step²/12",
    ),
    (
        "range of empirical levels",
        "1st to 99th percentile; tails are clipped",
        "least to greatest number; nothing is clipped",
    ),
    (
        "metadata",
        "32 bits a number: 257, 256 or 3 of them, and 2 more",
        "coded: a histogram by what differs from a normal one",
    ),
)


def differences(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """The lines of a Markdown table of what differs."""
    return ["| what differs | published | here |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
