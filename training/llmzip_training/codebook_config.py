"""How a codebook of conditioners is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmzip.errors import ConfigError
from llmzip_training.config import expect_at_least, expect_positive
from llmzip_training.run_file import ScheduleConfig


@dataclass(frozen=True)
class CodebookConfig:
    """How a codebook is trained.

    Attributes:
        schedule: length, seed and measurements; `measure_windows` is the number of held-out pieces, 0 for all.
        entries: how many, beside none.
        prefix_rows: of each entry's soft prompt.
        shifts: whether entries have steering rows.
        context: tokens in a piece.
        assign_tokens: of a piece, its first, by which it is assigned.
        batch: pieces in a step.
        pool: pieces in a round.
        epochs: how often a round goes through its pool.
        rate: learning rate at first, in standard deviations of the embeddings; it falls linearly to 0.
        chooser_pieces: that the chooser is fitted to.
        patience: measurements without gain until the end; 0 to go on.
    """

    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(steps=400))
    entries: int = 15
    prefix_rows: int = 0
    shifts: bool = True
    context: int = 512
    assign_tokens: int = 128
    batch: int = 16
    pool: int = 128
    epochs: int = 4
    rate: float = 0.2
    chooser_pieces: int = 384
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and entries of nothing."""
        for name in ("prefix_rows", "patience"):
            expect_at_least(name, getattr(self, name), 0)
        for name in ("entries", "context", "assign_tokens", "batch", "pool", "epochs"):
            expect_at_least(name, getattr(self, name), 1)
        expect_at_least("chooser_pieces", self.chooser_pieces, 2)
        expect_positive("rate", self.rate)
        if not self.prefix_rows and not self.shifts:
            raise ConfigError("codebook: expected prefix rows or shifts, found none")

    @property
    def round_steps(self) -> int:
        """Steps in a round."""
        return -(-self.pool * self.epochs // self.batch)
