"""Pictures of what hyperpriors cost: error against rate, and bits of a conditioner against bits of its text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.conditioned import Coded
from bench.quantised import KINDS, Quantised


def draw_rates(curves: Mapping[str, Sequence[Quantised]], path: Path) -> None:
    """Draw the error of each hyperprior against coded bits a coordinate, one plot for each kind of coordinates.

    Args:
        curves: what was found of each; the first are of N(0, 1) and get the bound of the best code that there can be.
        path: of the picture.
    """
    figure = _new_figure(5.0 * len(curves))
    if figure is None:
        return
    all_axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (source, found) in zip(all_axes, curves.items(), strict=True):
        _draw_curves(axes, found)
        axes.set(xlabel="bits a coordinate, hyperprior included", ylabel="mean squared error", title=source)
    rates = np.linspace(0, max(one.rate for one in next(iter(curves.values()))), 50)
    all_axes[0].plot(rates, 4.0**-rates, "k--", lw=1, label="least possible")
    for axes in all_axes:
        axes.legend()
    figure.savefig(path, dpi=150)


def _draw_curves(axes: Any, found: Sequence[Quantised]) -> None:
    """One curve a hyperprior; what has no error has no place on a logarithmic scale."""
    for kind, marker in zip(KINDS, "os^", strict=True):
        points = [one for one in found if one.kind == kind and one.mse > 0]
        axes.plot([one.rate for one in points], [one.mse for one in points], marker=marker, label=kind)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def draw_totals(points: Sequence[tuple[float, Coded]], title: str, path: Path) -> None:
    """Draw bits of the text against bits of its conditioner, one point for each coarseness.

    Args:
        points: factors of the steps and what came of them; the first is that without a conditioner.
        title: of the picture.
        path: where it goes.
    """
    figure = _new_figure(8.0)
    if figure is None:
        return
    axes = figure.subplots()
    without, steered = points[0][1], points[1:]
    side = [coded.side_bits for _, coded in steered]
    axes.plot(side, [coded.payload_bits for _, coded in steered], "o-", label="shifts, rounded by multiples of steps")
    for factor, coded in steered:
        place = (coded.side_bits, coded.payload_bits)
        axes.annotate(f"{factor:g}", place, xytext=(6, 4), textcoords="offset points")
    ends = np.array([0, max(side)])
    axes.plot(ends, without.payload_bits - ends, "k--", lw=1, label="no conditioner: above this line it costs more")
    best = min((coded for _, coded in steered), key=lambda coded: coded.total_bits)
    label = f"least total, {best.total_bits:,} bits; without {without.total_bits:,}"
    axes.plot([best.side_bits], [best.payload_bits], "r*", ms=16, label=label)
    axes.set(xlabel="bits of the conditioner", ylabel="bits of the text", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _new_figure(width: float) -> Any:
    """An empty picture; a line says so where there can be none."""
    try:
        from matplotlib import figure
    except ImportError:
        print("picture: expected matplotlib, found none: pip install 'llmzip[bench]'", file=sys.stderr)
        return None
    return figure.Figure(figsize=(width, 5), layout="constrained")
