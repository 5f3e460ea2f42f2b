"""A selective model under another selection: other cutoffs and budgets than its artefact was converted with."""

from __future__ import annotations

from dataclasses import replace

from llmzip.errors import ConfigError
from llmzip.exact.spec import MAX_CUTOFF, SELECTION_STEPS
from llmzip.models.artefact import Artefact


def with_selection(artefact: Artefact, cutoff: float | None = None, budgets: tuple[int, ...] | None = None) -> Artefact:
    """The same model under another selection; its id stays that of the files, so no archive of it may be kept.

    Args:
        artefact: of a selective model.
        cutoff: in nats; None leaves it as it is.
        budgets: of the layers, or one for all; none at all where empty; None leaves them as they are.

    Raises:
        ConfigError: the model is not selective, or the cutoff out of range.
        ModelInvalidError: budgets that the model cannot have.
    """
    spec = artefact.spec
    if spec.selection is None:
        raise ConfigError(f"model: expected selective attention, found none in {spec.family} {artefact.id[:10]}")
    selection = spec.selection
    if cutoff is not None:
        if not 0 < cutoff <= MAX_CUTOFF / SELECTION_STEPS:
            raise ConfigError(f"cutoff: expected nats above 0, at most {MAX_CUTOFF // SELECTION_STEPS}, found {cutoff}")
        selection = replace(selection, cutoff=round(cutoff * SELECTION_STEPS))
    if budgets is not None:
        selection = replace(selection, budgets=budgets * spec.n_layers if len(budgets) == 1 else budgets)
    return replace(artefact, settings=replace(artefact.settings, model=replace(spec, selection=selection)))


def describe(artefact: Artefact) -> str:
    """The cutoff in nats and the budgets of a selective model, in words."""
    selection = artefact.spec.selection
    if selection is None:
        return "no selection"
    budgets = f"budgets {'/'.join(map(str, selection.budgets))}" if any(selection.budgets) else "no budgets"
    return f"cutoff {selection.cutoff / SELECTION_STEPS:g}, {budgets}"


def budgets_of(text: str) -> tuple[int, ...]:
    """The budgets in `64/0/128`; 0 is no limit.

    >>> budgets_of("64/0/128")
    (64, 0, 128)
    """
    return tuple(int(part) for part in text.split("/"))
